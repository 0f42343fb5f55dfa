"""The command line.

Each command has its own file. A command imports what it needs only when it runs, so that ``--help`` and ``run`` start
fast.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run ``redis-consumer`` with the arguments of this process and exit with its code."""
    from redis_consumer.cli.app import app

    app(prog_name="redis-consumer")
