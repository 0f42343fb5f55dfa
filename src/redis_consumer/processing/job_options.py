"""Reads options of functions from the fields of a job, such as ``deep_watershed.small_objects_threshold=50``.

A job can set an option only if the function declares it ``per_job``, or the model's card lists it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis_consumer.errors import InvalidJob
from redis_consumer.options import per_job
from redis_consumer.processing.registry import BUILT_IN, Function, FunctionOptions, Functions
from redis_consumer.text import decimal, quoted, whole

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
