"""Lists the consumers, with their origin and a description."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.options import Option, describe_options
from redis_consumer.consumers.registry import BUILT_IN, find, get_consumer_class, path_of, plugins
from redis_consumer.errors import SettingsError


@dataclass(frozen=True)
class Listed:
    """A consumer, as it is shown to users.

    Attributes:
        name: its value in ``CONSUMER_TYPE``.
        path: ``package.module:Class``.
        origin: ``built in``, the distribution with its version, or ``import path``.
        help: first line of its docstring.
        error: why it can't be run; empty if it can.
        options: its options; none if it can't be run.
    """

    name: str
    path: str
    origin: str
    help: str = ""
    error: str = ""
    options: tuple[Option, ...] = ()


def list_consumers(paths: Iterable[str] = ()) -> list[Listed]:
    """List the built-in consumers, those of entry points and those of some import paths, also broken ones."""
    return [_listed(name) for name in dict.fromkeys([*BUILT_IN, *sorted(plugins()), *paths])]


def describe(consumer_type: str) -> Listed:
    """Describe one consumer.

    Raises:
        SettingsError: no consumer has this name or path, or no worker can run it.
    """
    return _described(consumer_type, get_consumer_class(consumer_type))


def help_of(consumer: type[Consumer]) -> str:
    """Return the first line of a consumer's own docstring; empty if it has none."""
    return inspect.cleandoc(consumer.__doc__ or "").partition("\n")[0]


def _described(name: str, found: type[Consumer]) -> Listed:
    options = tuple(describe_options(found.Options))
    return Listed(name, path_of(name) or "", _origin(name), help_of(found), options=options)


def _listed(name: str) -> Listed:
    try:
        return _described(name, find(name))
    except SettingsError as error:
        return Listed(name, path_of(name) or "", _origin(name), error=str(error))


def _origin(name: str) -> str:
    if name.lower() in BUILT_IN:
        return "built in"
    entry = plugins().get(name.lower())
    if entry is None:
        return "import path"
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "entry point"
