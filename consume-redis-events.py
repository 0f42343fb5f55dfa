"""Consume the events of one Redis queue, as the environment says; see the page "Designing a custom consumer"."""

import logging
import sys
from typing import Any

import redis_consumer
from redis_consumer import settings


def initialize_logger() -> None:
    """Log to the standard error stream at ``LOG_LEVEL``."""
    from redis_consumer.logs import initialize_logger

    initialize_logger(settings.get("LOG_LEVEL"), settings.get("LOG_FORMAT"))


def get_consumer(consumer_type: str, **kwargs: Any) -> "redis_consumer.consumers.Consumer":
    """Make the consumer for a type; add a branch of your own here, or name ``my_module:MyConsumer``."""
    from redis_consumer.consumers.registry import get_consumer_class

    logging.debug("Making a consumer of type %r", consumer_type)
    return get_consumer_class(consumer_type)(**kwargs)


def main() -> int:
    """Serve the queue until a signal comes."""
    from redis_consumer.cli.connect import run_worker

    initialize_logger()
    return run_worker(get_consumer)


if __name__ == "__main__":
    sys.exit(main())
