"""Finds the class of a consumer type: built in, an entry point of a package, or an import path."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.fitness import check_class, check_members
from redis_consumer.errors import ConsumerError, SettingsError

ENTRY_POINT_GROUP = "redis_consumer.consumers"
#: Folders of what others wrote: Python itself, installed packages, this package.
_LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(__file__).parents[1],
    )
)

#: Consumer type to module and class; imported when asked for.
BUILT_IN = {
    "image": "redis_consumer.consumers.image:ImageFileConsumer",
    "zip": "redis_consumer.consumers.zip_file:ZipFileConsumer",
    "tracking": "redis_consumer.consumers.tracking:TrackingConsumer",
    "caliban": "redis_consumer.consumers.tracking:TrackingConsumer",
}


#: Consumer types and their classes, once somebody has asked for them by `types`.
_types: dict[str, type[Consumer]] = {}


def types() -> dict[str, type[Consumer]]:
    """Give the built-in consumers by their types, as ``consumers.CONSUMERS``; what a script adds there is found too."""
    if not _types:
        _types.update({name: check_class(_import(path), path) for name, path in BUILT_IN.items()})
    return _types


def get_consumer_class(consumer_type: str) -> type[Consumer]:
    """Find the class for a consumer type.

    Args:
        consumer_type: a built-in name (any case), the name of an entry point in the group
            ``redis_consumer.consumers``, or ``package.module:Class``, looked for in the working directory too.

    Raises:
        SettingsError: there is none, or it can't be imported, or it is none that a worker can run. Also a ValueError.
    """
    text = str(consumer_type)
    try:
        return find(text)
    except SettingsError as error:
        raise SettingsError(f'Invalid `consumer_type`: "{text}": {error}') from error.__cause__


def find(consumer_type: str) -> type[Consumer]:
    """Do the same, with errors that don't say which type it is."""
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
        SettingsError: as `get_consumer_class`, or a variable of one of its options is wrong, or its constructor fails.
        OSError, MemoryError: its constructor found that something isn't there for now.
    """
    if isinstance(consumer_type, type):
        kind = check_class(consumer_type, consumer_type.__qualname__)
    else:
        kind = get_consumer_class(consumer_type)
    path = _place(kind)
    try:
        consumer = kind(**kwargs)
    except (ConsumerError, OSError, MemoryError):
        raise  # what it needs may be there the next time
    except Exception as error:
        problem = f"{type(error).__name__}: {error}{_where(error)}"
        raise SettingsError(f"{path} can't be made: its constructor fails: {problem}") from error
    if not hasattr(consumer, "job_queue"):
        raise SettingsError(f"{path} can't be made: its constructor must call super().__init__ with its arguments")
    return consumer


def make_by_script(get_consumer: Callable[..., Consumer], consumer_type: str, **kwargs: Any) -> Consumer:
    """Make the consumer by the ``get_consumer`` of a user's script.

    Raises:
        SettingsError: it fails, or gives something that a worker can't run.
        OSError, MemoryError: it found that something isn't there for now.
    """
    try:
        consumer = get_consumer(consumer_type, **kwargs)
    except (ConsumerError, OSError, MemoryError):
        raise  # what it needs may be there the next time
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
    """Whether an import path is where the class stands that one of some consumer types names.

    Args:
        path: module and class, as a class itself tells it; not imported unless a type of the same package is.
        types: as for `get_consumer_class`; of a package they may name the class by a shorter way than where it stands.
    """
    named = {(path_of(each) or each).replace(" ", ""): each for each in types}
    own = [each for way, each in named.items() if _package(way) == _package(path)]
    return path in named or any(_stands_at(path, each) for each in own)


def _stands_at(path: str, consumer_type: str) -> bool:
    with contextlib.suppress(SettingsError):
        return _place(find(consumer_type)) == path
    return False


def _place(kind: type[Consumer]) -> str:
    """The import path at which a class stands."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def names() -> list[str]:
    """All names that a consumer type may have, besides import paths."""
    return sorted({*BUILT_IN, *_types, *plugins()})


def plugins() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name, in lower case; a built-in name wins over one of these."""
    return {entry.name.lower(): entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def path_of(consumer_type: str) -> str | None:
    """The import path that a consumer type stands for, None where it is no known name."""
    name = consumer_type.lower()
    if name in BUILT_IN:
        return BUILT_IN[name]
    entry = plugins().get(name)
    return (entry.value if entry else None) or (consumer_type if ":" in consumer_type else None)


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    # The script and `redis-consumer` start without the working directory on the path; an author's file is there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute, None)  # which may import what it names only now
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
    """File and line of an author's module where its import failed; empty where it wasn't found at all."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so itself
    frames = traceback.extract_tb(error.__traceback__)
    called = [each for each in frames if each.filename not in (__file__, importlib.__file__)]
    called = [each for each in called if not each.filename.startswith("<")]
    # What a library complains of stands in the author's file, which called it.
    own = [each for each in called if not each.filename.startswith(_LIBRARIES)]
    if not own and called:  # it is installed itself
        home = os.path.dirname(called[0].filename)
        own = called[:1] if home in map(os.path.dirname, _LIBRARIES) else _within(called, home)
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _within(frames: list[traceback.FrameSummary], folder: str) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if frame.filename.startswith(f"{folder}{os.sep}")]


def _shadowed(module: ModuleType) -> str:
    """That a file of the author's isn't the module, since an installed one has its name."""
    own, imported = os.path.join(os.getcwd(), f"{module.__name__}.py"), getattr(module, "__file__", None)
    is_other = os.path.exists(own) and not (imported and os.path.samefile(own, imported))
    return f"; {own} isn't it, since Python has another module of that name: rename the file" if is_other else ""


def _others(module: ModuleType, missing: str) -> str:
    """Which class of the module may be meant."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    consumers = [name for name, value in classes.items() if issubclass(value, Consumer)]
    own = [name for name in consumers if classes[name].__module__ == module.__name__] or consumers
    near = difflib.get_close_matches(missing, own, n=1)
    return f"; did you mean {near[0]}?" if near else f"; its consumers are {', '.join(own)}" if own else ""
