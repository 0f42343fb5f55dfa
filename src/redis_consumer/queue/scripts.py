"""Sends Redis a script of ``lua/``, with keys and arguments, for each state change of a job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis import exceptions

from redis_consumer.errors import SettingsError
from redis_consumer.redis import RedisClient

#: Scripts that call functions of ``lua/child_jobs.lua``.
_WITH_CHILD_JOBS = frozenset(
    {"cancel", "claim", "complete", "fan_out", "read_children", "retry", "sweep", "update", "write_children"}
)


def script_call(name: str, keys: list[str], arguments: list[str]) -> Call:
    """Return one run of a script of ``lua/``."""
    return Call(_script(name), keys, arguments)


def flat(fields: Mapping[str, str]) -> list[str]:
    """Return names and texts in turn, as scripts take them."""
    return [text for pair in fields.items() for text in pair]


def text_of(value: object) -> str:
    """Return a value as Redis stores it; None is empty."""
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@cache
def _script(name: str) -> Script:
    folder = Path(__file__).parent / "lua"
    before = ["checks", "child_jobs"] if name in _WITH_CHILD_JOBS else ["checks"]
    return Script(*(folder / f"{each}.lua" for each in (*before, name)))


class Script:
    """A Lua script. It is sent by its digest, or with its text if the server doesn't know it (restart, failover).

    Args:
        paths: the files of the functions that it calls, and then the script's file.
    """

    def __init__(self, *paths: Path) -> None:
        self.text = "".join(path.read_text(encoding="utf-8") for path in paths)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Any, keys: list[str], arguments: list[str]) -> Any:
        """Run it with a `RedisClient` or any client of redis-py."""
        if isinstance(client, RedisClient):
            return run_together(client, [Call(self, keys, arguments)])[0]
        given = [len(keys), *keys, *arguments]
        with _wrong_types_in_words(keys):
            try:
                return client.evalsha(self.digest, *given)
            except exceptions.NoScriptError:
                return client.eval(self.text, *given)


@dataclass(frozen=True)
class Call:
    """One run of a script: its KEYS and ARGV."""

    script: Script
    keys: list[str]
    arguments: list[str]

    @property
    def by_digest(self) -> list[Any]:
        """The command for a server that knows the script."""
        return ["EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments]

    @property
    def by_text(self) -> list[Any]:
        """The command for any server."""
        return ["EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments]


def run_together(client: RedisClient, calls: list[Call], *commands: Sequence[Any]) -> list[Any]:
    """Run scripts and other commands in order, in one round trip, and give all replies.

    Args:
        client: the client whose connection is used.
        calls: the scripts. It must be safe to run each of them twice.
        commands: commands that follow the scripts.
    """
    with _wrong_types_in_words([key for call in calls for key in call.keys]):
        replies = client.batch(*(call.by_digest for call in calls), *commands)
        # Repeat only these, and the commands that follow: a claim that is repeated takes a second job.
        forgotten = [index for index in range(len(calls)) if isinstance(replies[index], exceptions.NoScriptError)]
        if forgotten:
            texts = [calls[index].by_text for index in forgotten]
            again = client.batch(*texts, *commands)
            replies[len(calls) :] = again[len(forgotten) :]
            for index, reply in zip(forgotten, again, strict=False):
                replies[index] = reply
    return replies


@contextmanager
def _wrong_types_in_words(keys: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except exceptions.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        found = re.search(r"WRONGTYPE (key .+ holds a \w+, not a \w+);", str(error), re.DOTALL)
        what = found[1] if found else f"one of the keys {', '.join(dict.fromkeys(keys))} is of the wrong kind"
        raise SettingsError(f"Redis: {what}; set QUEUE to a name of its own, or delete the key") from error
