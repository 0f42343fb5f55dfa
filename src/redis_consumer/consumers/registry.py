"""Finds the class of a consumer type, and checks that a worker can run it.

A type is built in, an entry point of a package, or an import path.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.options import ConsumerOptions, check_names
from redis_consumer.errors import ConsumerError, SettingsError

ENTRY_POINT_GROUP = "redis_consumer.consumers"
#: Folders of code that the author did not write: Python, installed packages, this package.
_LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(__file__).parents[1],
    )
)

#: Module and class of each built-in consumer type; imported when it is used.
BUILT_IN = {
    "image": "redis_consumer.consumers.image:ImageFileConsumer",
    "zip": "redis_consumer.consumers.zip_file:ZipFileConsumer",
    "segmentation": "redis_consumer.consumers.kiosk_segmentation:SegmentationConsumer",
    "mesmer": "redis_consumer.consumers.mesmer:MesmerConsumer",
    "multiplex": "redis_consumer.consumers.mesmer:MesmerConsumer",
    "spot": "redis_consumer.consumers.spot:SpotConsumer",
    "polaris": "redis_consumer.consumers.polaris:PolarisConsumer",
    "tracking": "redis_consumer.consumers.tracking:TrackingConsumer",
    "caliban": "redis_consumer.consumers.tracking:TrackingConsumer",
}


#: Consumer types and their classes, after the first call of `types`.
_types: dict[str, type[Consumer]] = {}
#: Arguments with which workers call the constructor (contract, section 6).
ARGUMENTS = ("redis_client", "storage_client", "queue")
#: Methods that authors write, with the arguments that workers pass.
_METHODS = {"_consume": ("redis_hash",), "analyze": ("image", "job")}


def types() -> dict[str, type[Consumer]]:
    """Return the built-in consumers by type, as ``consumers.CONSUMERS``. A script can add others to it."""
    if not _types:
        _types.update({name: check_class(_import(path), path) for name, path in BUILT_IN.items()})
    return _types


def get_consumer_class(consumer_type: str) -> type[Consumer]:
    """Find the class for a consumer type.

    Args:
        consumer_type: a built-in name (any case), the name of an entry point in the group ``redis_consumer.consumers``,
            or ``package.module:Class``, which can also be in the working directory.

    Raises:
        SettingsError: the class doesn't exist, can't be imported, or can't be run by a worker. Also a ValueError.
    """
    text = str(consumer_type)
    try:
        return find(text)
    except SettingsError as error:
        raise SettingsError(f'Invalid `consumer_type`: "{text}": {error}') from error.__cause__


def find(consumer_type: str) -> type[Consumer]:
    """Do the same, but raise errors without the name of the type."""
    added = _types.get(consumer_type) or _types.get(consumer_type.lower())
    if added is not None:
        return check_class(added, consumer_type)
    path = path_of(consumer_type)
    if path is None:
        known = names()
        near = difflib.get_close_matches(consumer_type, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"known are {', '.join(known)}, or package.module:Class{hint}")
    return check_class(_import(path), path)


def make_consumer(consumer_type: str | type[Consumer], **kwargs: Any) -> Consumer:
    """Make the consumer for a type, or for a class, with the arguments of its constructor.

    Raises:
        SettingsError: as `get_consumer_class`; or the variable of an option is wrong, or the constructor fails.
        OSError, MemoryError: a resource that the constructor needs is unavailable.
    """
    if isinstance(consumer_type, type):
        kind = check_class(consumer_type, consumer_type.__qualname__)
    else:
        kind = get_consumer_class(consumer_type)
    path = _place(kind)
    try:
        consumer = kind(**kwargs)
    except (ConsumerError, OSError, MemoryError):
        raise  # its resources may be available the next time
    except Exception as error:
        problem = f"{type(error).__name__}: {error}{_where(error)}"
        raise SettingsError(f"{path} can't be made: its constructor fails: {problem}") from error
    if not hasattr(consumer, "job_queue"):
        raise SettingsError(f"{path} can't be made: its constructor must call super().__init__ with its arguments")
    return consumer


def make_by_script(get_consumer: Callable[..., Consumer], consumer_type: str, **kwargs: Any) -> Consumer:
    """Make the consumer by the ``get_consumer`` of a user's script.

    Raises:
        SettingsError: it fails, or returns something that a worker can't run.
        OSError, MemoryError: a resource that it needs is unavailable.
    """
    try:
        consumer = get_consumer(consumer_type, **kwargs)
    except (ConsumerError, OSError, MemoryError):
        raise  # its resources may be available the next time
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}{_where(error)}"
        raise SettingsError(f"get_consumer fails for CONSUMER_TYPE={consumer_type}: {problem}; correct it") from error
    if not isinstance(consumer, Consumer) or not hasattr(consumer, "job_queue"):
        raise SettingsError(
            f"get_consumer gives {consumer!r:.50} for CONSUMER_TYPE={consumer_type}; it must return a Consumer, whose "
            "constructor calls super().__init__ with its arguments"
        )
    check_members(type(consumer), f"get_consumer: {_place(type(consumer))}", vars(consumer))
    return consumer


def is_named(path: str, types: Iterable[str]) -> bool:
    """Return whether an import path is the one of a class that some consumer types name.

    Args:
        path: module and class. It is imported only if a type of the same package is.
        types: as for `get_consumer_class`. A type can name the class by a shorter path than that of its module.
    """
    named = {(path_of(each) or each).replace(" ", ""): each for each in types}
    own = [each for way, each in named.items() if _package(way) == _package(path)]
    return path in named or any(_stands_at(path, each) for each in own)


def _stands_at(path: str, consumer_type: str) -> bool:
    with contextlib.suppress(SettingsError):
        return _place(find(consumer_type)) == path
    return False


def _place(kind: type[Consumer]) -> str:
    """Return the import path of a class's definition."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def names() -> list[str]:
    """Return all names of consumer types, without import paths."""
    return sorted({*BUILT_IN, *_types, *plugins()})


def plugins() -> dict[str, EntryPoint]:
    """Return the entry points of installed packages by their names in lower case. Built-in names take precedence."""
    return {entry.name.lower(): entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def path_of(consumer_type: str) -> str | None:
    """Return the import path of a consumer type; None if its name is unknown."""
    name = consumer_type.lower()
    if name in BUILT_IN:
        return BUILT_IN[name]
    entry = plugins().get(name)
    return (entry.value if entry else None) or (consumer_type if ":" in consumer_type else None)


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    # The script and `redis-consumer` start without the working directory on the path, but an author's file is in it.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute, None)  # which may import the named class only now
    except (Exception, SystemExit) as error:
        where = _where(error)
        raise SettingsError(f"{path} can't be imported: {type(error).__name__}: {error}{where}") from error
    if found is None:
        raise SettingsError(
            f"{path} can't be imported: module {module_name!r} has no attribute {attribute!r}"
            f"{_others(module, attribute)}{_shadowed(module)}"
        )
    return found


def _where(error: BaseException) -> str:
    """Return file and line of an author's module at which its import failed; empty if the module wasn't found."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so itself
    frames = traceback.extract_tb(error.__traceback__)
    called = [each for each in frames if each.filename not in (__file__, importlib.__file__)]
    called = [each for each in called if not each.filename.startswith("<")]
    # If a library raises the error, the author's file that called it is named.
    own = [each for each in called if not each.filename.startswith(_LIBRARIES)]
    if not own and called:  # it is installed itself
        home = os.path.dirname(called[0].filename)
        own = called[:1] if home in map(os.path.dirname, _LIBRARIES) else _within(called, home)
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _within(frames: list[traceback.FrameSummary], folder: str) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if frame.filename.startswith(f"{folder}{os.sep}")]


def _shadowed(module: ModuleType) -> str:
    """Return a note that an installed module has the name of the author's file, and is used instead."""
    own, imported = os.path.join(os.getcwd(), f"{module.__name__}.py"), getattr(module, "__file__", None)
    is_other = os.path.exists(own) and not (imported and os.path.samefile(own, imported))
    return f"; {own} isn't it, since Python has another module of that name: rename the file" if is_other else ""


def _others(module: ModuleType, missing: str) -> str:
    """Return the classes of the module that may be meant."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    consumers = [name for name, value in classes.items() if issubclass(value, Consumer)]
    own = [name for name in consumers if classes[name].__module__ == module.__name__] or consumers
    near = difflib.get_close_matches(missing, own, n=1)
    return f"; did you mean {near[0]}?" if near else f"; its consumers are {', '.join(own)}" if own else ""


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
