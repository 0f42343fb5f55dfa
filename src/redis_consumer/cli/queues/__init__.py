"""Commands for queues: show them, sweep and prune them, and handle dead letters."""
