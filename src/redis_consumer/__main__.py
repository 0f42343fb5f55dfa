"""Runs ``redis-consumer`` for ``python -m redis_consumer``."""

from redis_consumer.cli import main

if __name__ == "__main__":
    main()
