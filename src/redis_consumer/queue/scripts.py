"""Names the package's own keys in Redis, and sends Redis the scripts of ``lua/``, one for each change of a job's state.

All of these keys begin with ``redis-consumer:`` and end with the name of their queue:

================  ======  ===============================================================================
leases            zset    running jobs by the time (ms, the server's clock) at which their lease ends
holders           hash    running jobs: ``<attempt> <processing list>``, the fencing token
attempts          hash    runs of a job so far; removed at its end, but kept for dead letters
forgiven          hash    runs of a job that don't count against ``MAX_ATTEMPTS``
given-back        hash    outages for which a job was given back, with ``completed`` and ``recovered`` at that time
dead              list    dead letters, the latest first
cancelled         set     running jobs that must stop
workers           zset    workers by the time at which their registration ends
processing        set     processing lists that may contain a job
orphans           hash    when a sweep first saw an entry without a lease, or a deadline in doubt
swept             string  time of the last sweep
completed         string  jobs completed or failed so far
totals            hash    counts for metrics, see below
recovered         string  how often a worker found that an unavailable service responds again
rates             hash    jobs completed or failed in each minute (``2026-11-24T09:30``) of the last hour
leftovers         zset    orphaned results (``<attempt> <job>``) by the time from which they can be removed
registrations     hash    token of the process that is registered under a worker's name, and its lease in ms
activities        hash    what each worker does or waits for, as JSON, see `redis_consumer.worker.activity`
waiting           zset    parent jobs that wait for their children, by the time of their last check
================  ======  ===============================================================================

The set ``redis-consumer:queues`` holds the names of all queues that a worker has served.

``totals`` counts the jobs in ``completed`` that weren't ``done`` under ``failed`` and ``dead``. It also has
``exhausted`` (dead letters without an attempt left) and ``cancelled`` (while they waited). Claims that ended in
another way are ``returned`` (given back), ``divided`` (into children), ``lapsed`` (swept after their lease ran out)
and ``stranded`` (swept, without ever having had a lease). So a job that is ``done`` needs no count here.

``lua/job_tree.lua`` describes the keys of a parent.
"""

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


def own_key(kind: str, queue: str) -> str:
    """Return the name of a key for a queue, see the table above."""
    return f"redis-consumer:{kind}:{queue}"


_FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True)
class Call:
    """One run of a script.

    Attributes:
        script: its name.
        key: the queue; for ``read``, the hash.
        arguments: in the order in which the script's header names them.
    """

    script: str
    key: str
    arguments: Sequence[str | int]


def run_script(client: Any, call: Call) -> Any:
    """Run a script with a `RedisClient` or any client of redis-py."""
    if isinstance(client, RedisClient):
        return run_together(client, [call])[0]
    with _wrong_types_in_words([call]):
        try:
            return client.evalsha(digest_of(call.script), 1, call.key, *call.arguments)
        except exceptions.NoScriptError:
            return client.eval(_text_of(call.script), 1, call.key, *call.arguments)


def run_together(client: RedisClient, calls: Sequence[Call], *commands: Sequence[Any]) -> list[Any]:
    """Run scripts and other commands in order, in one round trip, and give all replies.

    A script is sent by its digest, and with its text if the server doesn't know it, as after a restart or failover.

    Args:
        client: the client whose connection is used.
        calls: the scripts. It must be safe to run each of them twice.
        commands: commands that follow the scripts.
    """
    with _wrong_types_in_words(calls):
        by_digest = [("EVALSHA", digest_of(call.script), 1, call.key, *call.arguments) for call in calls]
        replies = client.batch(*by_digest, *commands)
        # Repeat only these, and the commands that follow: a claim that is repeated takes a second job.
        forgotten = [index for index in range(len(calls)) if isinstance(replies[index], exceptions.NoScriptError)]
        if forgotten:
            by_text = [("EVAL", _text_of(calls[index].script), *by_digest[index][2:]) for index in forgotten]
            again = client.batch(*by_text, *commands)
            replies[len(calls) :] = again[len(forgotten) :]
            for index, reply in zip(forgotten, again, strict=False):
                replies[index] = reply
    return replies


def flat(fields: Mapping[str, str]) -> list[str]:
    """Return names and texts in turn, as scripts take them."""
    return [text for pair in fields.items() for text in pair]


def text_of(value: object) -> str:
    """Return a value as Redis stores it; None is empty."""
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@cache
def digest_of(script: str) -> str:
    """Return the digest by which a server knows a script that it has run before."""
    return hashlib.sha1(_text_of(script).encode(), usedforsecurity=False).hexdigest()


@cache
def _text_of(script: str) -> str:
    return "".join((_FOLDER / f"{name}.lua").read_text(encoding="utf-8") for name in ("common", "job_tree", script))


@contextmanager
def _wrong_types_in_words(calls: Sequence[Call]) -> Iterator[None]:
    try:
        yield
    except exceptions.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        found = re.search(r"WRONGTYPE (key .+ holds a \w+, not a \w+);", str(error), re.DOTALL)
        what = found[1] if found else f"a key of {' or '.join({call.key for call in calls})} is of the wrong kind"
        raise SettingsError(f"Redis: {what}; set QUEUE to a name of its own, or delete the key") from error
