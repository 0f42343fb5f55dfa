"""Commands for workers: run them and check their setup."""
