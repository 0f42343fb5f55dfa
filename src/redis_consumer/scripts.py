"""What is sent to Redis for one state change of a job: a script of ``lua/`` with its keys and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from redis_consumer.redis import Call, Script

#: Scripts that call functions of ``lua/family.lua``.
_WITH_FAMILY = frozenset({"cancel", "children", "claim", "complete", "fan_out", "retry", "stage", "sweep", "update"})


def script_call(name: str, keys: list[str], arguments: list[str]) -> Call:
    """One run of a script of ``lua/``."""
    return Call(_script(name), keys, arguments)


def flat(fields: Mapping[str, str]) -> list[str]:
    """Names and texts in turn, as a script takes them."""
    return [text for pair in fields.items() for text in pair]


def text_of(value: object) -> str:
    """A value as Redis holds it; None is empty."""
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@cache
def _script(name: str) -> Script:
    folder = Path(__file__).parent / "lua"
    before = ["checks", "family"] if name in _WITH_FAMILY else ["checks"]
    return Script(*(folder / f"{each}.lua" for each in (*before, name)))
