"""API v1, one router a file."""
