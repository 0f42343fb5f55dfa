"""Which class a consumer type names: built in, an entry point of a package, or an import path."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import entry_points
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.errors import SettingsError

ENTRY_POINT_GROUP = "redis_consumer.consumers"

#: Consumer type to module and class; imported when asked for.
BUILT_IN = {
    "image": "redis_consumer.consumers.image:ImageFileConsumer",
    "zip": "redis_consumer.consumers.zip_file:ZipFileConsumer",
    "tracking": "redis_consumer.consumers.tracking:TrackingConsumer",
    "caliban": "redis_consumer.consumers.tracking:TrackingConsumer",
}


def get_consumer_class(consumer_type: str) -> type[Consumer]:
    """Find the class for a consumer type.

    Args:
        consumer_type: a built-in name (any case), the name of an entry point in the group
            ``redis_consumer.consumers``, or ``package.module:Class``, looked for in the working directory too.

    Raises:
        SettingsError: there is none, or it can't be imported, or it is no consumer. Also a ValueError.
    """
    text = str(consumer_type)
    path = BUILT_IN.get(text.lower()) or _entry_point(text) or (text if ":" in text else None)
    if path is None:
        raise SettingsError(
            f'Invalid `consumer_type`: "{text}"; known are {", ".join(names())}, or package.module:Class'
        )
    found = _import(path)
    if not (isinstance(found, type) and issubclass(found, Consumer)):
        raise SettingsError(
            f'Invalid `consumer_type`: "{text}": {path} is no subclass of redis_consumer.consumers.Consumer'
        )
    if found._consume is Consumer._consume:
        raise SettingsError(f'Invalid `consumer_type`: "{text}": {path} has no method _consume(self, redis_hash)')
    return found


def make_consumer(consumer_type: str, **kwargs: Any) -> Consumer:
    """Make the consumer for a type, with the arguments of its constructor.

    Raises:
        SettingsError: as `get_consumer_class`, or this version can't run it.
    """
    found = get_consumer_class(consumer_type)
    try:
        return found(**kwargs)
    except TypeError as error:
        raise SettingsError(
            f'Invalid `consumer_type`: "{consumer_type}" can\'t be made: {error}; its constructor must take '
            f"the arguments {', '.join(kwargs)}"
        ) from error


def is_offered(path: str) -> bool:
    """Whether an import path is that of a built-in consumer, or of one that an installed package offers."""
    return path in BUILT_IN.values() or path in {entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> list[str]:
    """All names that a consumer type may have, besides import paths."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def _entry_point(name: str) -> str | None:
    found = {entry.name.lower(): entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return found.get(name.lower())


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    # The script and `redis-consumer` start without the working directory on the path; an author's file is there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise SettingsError(
            f'Invalid `consumer_type`: "{path}" can\'t be imported: {type(error).__name__}: {error}'
        ) from error
