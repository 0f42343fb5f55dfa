"""The command line. Each command has its own file and prints; what it does is in the packages below."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run ``redis-consumer`` with the arguments of this process and exit with its code."""
    from redis_consumer.cli.app import app

    app(prog_name="redis-consumer")
