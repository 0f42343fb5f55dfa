"""What can a person ask for at the command line?

One file a group of commands; each imports what it needs when it runs, so that ``--help`` and ``run`` start fast.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run ``redis-consumer`` with the arguments of this process and exit with its code."""
    from redis_consumer.cli.app import app

    app(prog_name="redis-consumer")
