"""Consume the events of one Redis queue, as the environment says; see the page on writing a consumer."""

import logging
import sys
from typing import Any

import redis_consumer
from redis_consumer import app, settings
from redis_consumer.consumers import registry


def initialize_logger() -> None:
    """Log as ``LOG_LEVEL`` and ``LOG_FORMAT`` say."""
    app.start_logs(settings.current())


def get_consumer(consumer_type: str, **kwargs: Any) -> "redis_consumer.consumers.Consumer":
    """Make the consumer for a type, in any case; a branch of your own goes here."""
    logging.debug("Making a consumer of type %s", consumer_type)
    return registry.make_consumer(consumer_type, **kwargs)


if __name__ == "__main__":
    sys.exit(app.run_script(initialize_logger, get_consumer))
