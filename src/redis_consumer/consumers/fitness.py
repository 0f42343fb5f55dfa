"""Checks that a worker can run a class, and says why if not."""

from __future__ import annotations

import inspect
from collections.abc import Collection

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.options import ConsumerOptions, check_names
from redis_consumer.errors import SettingsError

#: Arguments with which workers call the constructor (contract, section 6).
ARGUMENTS = ("redis_client", "storage_client", "queue")
#: Methods that authors write, with the arguments that workers pass.
_METHODS = {"_consume": ("redis_hash",), "analyze": ("image", "job")}


def check_class(found: object, path: str) -> type[Consumer]:
    """Return a class if a worker can run it.

    Args:
        found: the object that a consumer type names.
        path: where it was found, for messages.

    Raises:
        SettingsError: it can't run it: not a consumer class, an abstract class, no `_consume`, wrong signatures, or
            options whose names have another meaning.
    """
    if not (isinstance(found, type) and issubclass(found, Consumer)):
        raise SettingsError(f"{path} is no subclass of redis_consumer.consumers.Consumer; derive it from that class")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise SettingsError(f"{path} is abstract: it lacks {missing}; add what is missing, or name a class that has it")
    if not _takes(found, **dict.fromkeys(ARGUMENTS, "")):
        raise SettingsError(
            f"{path} can't be made: its constructor must take the arguments {', '.join(ARGUMENTS)}; "
            "pass on what it doesn't know by **kwargs"
        )
    check_members(found, path)
    return found


def check_members(found: type[Consumer], path: str, own: Collection[str] = ()) -> None:
    """Refuse a class whose jobs would all fail, however its instances are made.

    Args:
        found: the class.
        path: where it was found, for messages.
        own: methods that an instance has in place of those of the class.

    Raises:
        SettingsError: no `_consume`, wrong signatures, or options whose names have another meaning.
    """
    if found._consume is Consumer._consume and "_consume" not in own:
        raise SettingsError(f"{path} has no method _consume(self, redis_hash); add it, or take another base class")
    for name, arguments in _METHODS.items():
        if name not in own and _is_ours(found, name):
            _check_method(found, name, arguments, path)
    if not (isinstance(found.Options, type) and issubclass(found.Options, ConsumerOptions)):
        raise SettingsError(f"{path}: its Options is no subclass of redis_consumer.consumers.ConsumerOptions")
    check_names(found.Options, path)


def _is_ours(found: type[Consumer], name: str) -> bool:
    """Return whether this package calls a method, because one of its base classes has it too."""
    bases = [base for base in found.__mro__ if base.__module__.startswith("redis_consumer.consumers.")]
    return any(name in vars(base) for base in bases)


def _check_method(found: type[Consumer], name: str, arguments: tuple[str, ...], path: str) -> None:
    method = getattr(found, name)
    wanted = f"def {name}({', '.join(('self', *arguments))})"
    if not callable(method):
        raise SettingsError(f"{path}: its {name} is no method but {method!r:.50}; write it as {wanted}")
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise SettingsError(f"{path}: its {name} is async; write it as {wanted}")
    if inspect.isgeneratorfunction(method):
        raise SettingsError(f"{path}: its {name} yields, so nothing of it would run; write it as {wanted}, with return")
    if not _takes(method, "self", *arguments):
        raise SettingsError(f"{path}: its {name} takes {inspect.signature(method)}; write it as {wanted}")


def _takes(function: object, *args: object, **kwargs: object) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
