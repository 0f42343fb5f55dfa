"""Finds and runs the functions that jobs name to run before and after the model, with the options that jobs set.

A field such as ``deep_watershed.small_objects_threshold=50`` sets an option. A job can set only options that the
function declares ``per_job``, or that the model's card lists.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob, ModelMismatch, PermanentError
from redis_consumer.options import per_job
from redis_consumer.text import decimal, quoted, whole

Array = npt.NDArray[Any]
Function = Callable[..., Any]
#: Keyword arguments by the name of a function.
FunctionOptions = Mapping[str, Mapping[str, Any]]

_ROOM = "redis_consumer.processing"
#: Names of the contract (section 5.3), in lower case, and the functions, which are imported when they are used.
BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "pre": {
        "normalize": f"{_ROOM}.normalization:normalize",
        "histogram_normalization": f"{_ROOM}.normalization:histogram_normalization",
        "phase_preprocess": f"{_ROOM}.normalization:histogram_normalization",
        "percentile_normalize": f"{_ROOM}.normalization:percentile_normalize",
        "percentile_threshold": f"{_ROOM}.normalization:percentile_threshold",
    },
    "post": {
        "deepcell": f"{_ROOM}.labels:pixelwise",
        "pixelwise": f"{_ROOM}.labels:pixelwise",
        "watershed": f"{_ROOM}.labels:watershed",
        "deep_watershed": f"{_ROOM}.labels:deep_watershed",
        "fill_holes": f"{_ROOM}.outlines:fill_holes",
        "mesmer": f"{_ROOM}.multiplex:mesmer",
        "mibi": f"{_ROOM}.multiplex:mibi",
        "deep_watershed_mibi": f"{_ROOM}.multiplex:deep_watershed_mibi",
        "retinanet": f"{_ROOM}.boxes:retinanet",
        "retinanet-semantic": f"{_ROOM}.boxes:retinanet_semantic",
    },
}
#: Groups of entry points in which other packages register functions.
GROUPS = {"pre": "redis_consumer.preprocess", "post": "redis_consumer.postprocess"}
FIELDS = {"pre": "preprocess_function", "post": "postprocess_function"}

#: Functions after the model that get all outputs as a list, and those that get the first output. Other functions get
#: the output itself if there is only one, or else the list (contract).
TAKES_ALL = frozenset({"deep_watershed", "deep_watershed_mibi", "mesmer", "retinanet", "retinanet-semantic"})
TAKES_FIRST = frozenset({"deepcell", "pixelwise", "watershed", "fill_holes", "mibi"})
#: Functions after a model that finds objects, whose outputs aren't pixels. Such a model gets whole images.
OF_OBJECTS = frozenset({"retinanet", "retinanet-semantic"})


def finds_objects(names: Iterable[str]) -> bool:
    """Return whether one of some functions after the model takes objects, so that the model must get whole images."""
    return any(name.strip().lower() in OF_OBJECTS for name in names)


def options_of_objects(names: Iterable[str], options: FunctionOptions, shape_yx: tuple[int, int]) -> FunctionOptions:
    """Return the options of functions, with the size of the image for those whose data don't tell it."""
    if not any(name.strip().lower() == "retinanet" for name in names):
        return options
    return {**options, "retinanet": {**options.get("retinanet", {}), "shape0": shape_yx[0], "shape1": shape_yx[1]}}


def get_function(process_type: str, name: str) -> Function:
    """Find a function by the name in a job. Upper and lower case are equal.

    Args:
        process_type: ``pre`` or ``post``.
        name: a built-in name, or the name of an entry point in the group of `GROUPS`.

    Raises:
        InvalidJob: type or name is unknown, or the function can't be imported.
    """
    if process_type not in BUILT_IN:
        raise InvalidJob(f"process type {process_type!r} is unknown; give pre or post")
    key = name.strip().lower()
    place = BUILT_IN[process_type].get(key)
    if place is not None:
        module, _, attribute = place.partition(":")
        function: Function = getattr(import_module(module), attribute)
        return function
    return _plugged_in(process_type, key)


def apply(
    process_type: str,
    names: Sequence[str],
    data: Array | Sequence[Array],
    options: Mapping[str, Mapping[str, object]] | None = None,
) -> Any:
    """Run functions in order, each on the result of the previous one.

    Args:
        process_type: ``pre`` or ``post``.
        names: names for `get_function`. Empty names are skipped.
        data: ``pre``: (B, Y, X, C). ``post``: the model's outputs, (B, Y, X, K) each, as a list or a single array.
        options: keyword arguments for a function, by its lower-case name.

    Returns:
        ``pre``: (B, Y, X, C'). ``post``: (B, Y, X, 1) label images. If `names` is empty, `data` itself.

    Raises:
        InvalidJob: raised by `get_function`.
        ModelMismatch: a function doesn't accept the data or its options, or doesn't return an array of rank 4.
        PermanentError: raised by a function.
    """
    result: Any = data
    for name in names:
        key = name.strip().lower()
        if key:
            function = get_function(process_type, key)
            argument = _argument(key, result) if process_type == "post" else result
            result = _call(key, function, argument, (options or {}).get(key, {}))
    return result


def _argument(key: str, data: Any) -> Any:
    outputs = [data] if isinstance(data, np.ndarray) else list(data)
    if not outputs:
        raise ModelMismatch(f"function {key}: the model gave no outputs; choose another model")
    if key in TAKES_ALL:
        return outputs
    return outputs[0] if key in TAKES_FIRST or len(outputs) == 1 else outputs


def _call(key: str, function: Function, argument: Any, options: Mapping[str, object]) -> Array:
    try:
        inspect.signature(function).bind(argument, **options)
    except TypeError as error:
        raise ModelMismatch(f"function {key}: {error}; correct the options of the function") from error
    try:
        result = function(argument, **options)
    except PermanentError:
        raise
    except ValueError as error:
        raise ModelMismatch(f"function {key}: {error}; choose a function that fits the model's outputs") from error
    if not isinstance(result, np.ndarray) or result.ndim != 4:
        shape = getattr(result, "shape", type(result).__name__)
        raise ModelMismatch(f"function {key}: gave {shape}, not an array (batch, y, x, channel); correct the function")
    return result


def _plugged_in(process_type: str, key: str) -> Function:
    found: dict[str, EntryPoint] = {point.name.lower(): point for point in entry_points(group=GROUPS[process_type])}
    field = f"field {FIELDS[process_type]}"
    if key in found:
        try:
            function: Function = found[key].load()
        except (ImportError, AttributeError) as error:
            raise InvalidJob(f"{field}: {key!r} can't be imported from {found[key].value}; fix its package") from error
        return function
    raise InvalidJob(f"{field}: {key!r} is unknown; {_choices(process_type, found)}")


def _choices(process_type: str, found: Mapping[str, EntryPoint]) -> str:
    return f"give one of {', '.join(sorted({*BUILT_IN[process_type], *found}))}"


@dataclass(frozen=True)
class Functions:
    """The functions that jobs can name: those of a user's script, of this package and of other packages.

    Attributes:
        own: functions of a user's script, by kind (``pre``, ``post``) and name.
        note: called for each function that is run, with kind, name, the function if it is one of a script, and options.
    """

    own: Mapping[str, Mapping[str, Function]]
    note: Callable[[str, str, Function | None, Mapping[str, Any]], None] = lambda *_: None

    def run(self, kind: str, names: Iterable[str], data: Any, options: FunctionOptions) -> Any:
        """Run functions in order, each on the output of the one before.

        Args:
            kind: ``pre`` or ``post``.
            names: of the functions.
            data: (B, Y, X, C), or the list of the model's outputs.
            options: keyword arguments by function name.
        """
        for name in names:
            self.note_all(kind, [name], options)
            own = self.find_own(kind, name)
            data = own(data) if own else apply(kind, [name], data, options)
        return data

    def note_all(self, kind: str, names: Iterable[str], options: FunctionOptions) -> None:
        """Note the functions for the record of the result; arguments as for `run`."""
        for name in filter(None, names):
            self.note(kind, name, self.find_own(kind, name), options.get(name.strip().lower(), {}))

    def find(self, kind: str, name: str) -> Function:
        """Find a function by its name, in any case.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        return self.find_own(kind, name) or get_function(kind, name)

    def find_own(self, kind: str, name: str) -> Function | None:
        """Return the function that a user's script has added under this name, in any case."""
        functions = self.own.get(kind, {})
        wanted = name.strip().lower()
        found = functions.get(name) or next((functions[key] for key in functions if key.lower() == wanted), None)
        return None if found is None or is_built_in(found, kind, name) else found

    def are_ours(self, preprocess: Iterable[str], postprocess: Iterable[str]) -> bool:
        """Return whether all of these functions are the package's own, which process one frame at a time."""
        kinds = {"pre": preprocess, "post": postprocess}
        return all(
            self.find_own(kind, name) is None and name.strip().lower() in BUILT_IN[kind]
            for kind, names in kinds.items()
            for name in filter(None, names)
        )


def is_built_in(function: Function, kind: str, name: str) -> bool:
    """Return whether a function is this package's own under a name."""
    is_known = name.strip().lower() in BUILT_IN.get(kind, {})
    return is_known and function is get_function(kind, name)


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text.lower()]


#: How the text of a field becomes a value, and what to give.
_READERS: Mapping[type, tuple[Callable[[str], Any], str]] = {
    bool: (_boolean, "true or false"),
    int: (whole, "a whole number"),
    float: (decimal, "a number"),
    str: (str, "a text"),
}


def job_options(
    fields: Mapping[str, str],
    functions: Functions,
    named: Mapping[str, Sequence[str]],
    listed: Collection[str] = (),
) -> FunctionOptions:
    """Return the options of functions that a job sets, by the functions' names.

    Args:
        fields: of the job. ``<function>.<option>`` sets an option; an empty text doesn't.
        functions: the functions that jobs can name.
        named: names of the functions that run for this job, by kind (``pre``, ``post``).
        listed: options ``<function>.<option>`` that the card of the model lets a job set.

    Raises:
        InvalidJob: names the field. The function doesn't run, has no such option, a job can't set it, or its value
            can't be read.
    """
    running = {name.strip().lower(): (kind, name) for kind, names in named.items() for name in names if name.strip()}
    known = {*running, *(name for names in BUILT_IN.values() for name in names)}
    options: dict[str, dict[str, Any]] = {}
    for field, text in fields.items():
        name, dot, option = field.strip().partition(".")
        name = name.lower()
        if not dot or name not in known or not text.strip():
            continue
        if name not in running:
            raise InvalidJob(f"field {field}: {name} doesn't run for this job; leave the field out, or name {name}")
        settable = _settable(functions.find(*running[name]), name, listed)
        _check_settable(field, name, option, settable)
        options.setdefault(name, {})[option] = _value(field, text.strip(), settable[option])
    return options


def _check_settable(field: str, name: str, option: str, settable: Collection[str]) -> None:
    if option not in settable:
        choices = ", ".join(f"{name}.{each}" for each in settable) or "none"
        raise InvalidJob(
            f"field {field}: a job can't set this option; it can set of {name}: {choices}. Leave the field out, or "
            "list the option in per_job of the model's card"
        )


def _value(field: str, text: str, kinds: Sequence[type]) -> Any:
    """Read a text as the first of some types that it can be."""
    for kind in kinds:
        with suppress(ValueError):
            return _READERS[kind][0](text)
    wanted = " or ".join(_READERS[kind][1] for kind in kinds)
    raise InvalidJob(f"field {field}: {quoted(text)} can't be read; give {wanted}")


def _settable(function: Function, name: str, listed: Collection[str]) -> dict[str, list[type]]:
    """Return the options that a job can set, and their types."""
    found = {}
    for option, hint in typing.get_type_hints(function, include_extras=True).items():
        if per_job in getattr(hint, "__metadata__", ()) or f"{name}.{option}" in listed:
            kinds = set(_types_in(hint))
            found[option] = [kind for kind in _READERS if kind in kinds]
    return {option: kinds for option, kinds in found.items() if kinds}


def _types_in(hint: Any) -> Iterator[Any]:
    parts = typing.get_args(hint)
    if not parts and isinstance(hint, type):
        yield hint
    for part in parts:
        yield from _types_in(part)
