"""Commands for authors of consumers."""
