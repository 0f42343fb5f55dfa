"""Runs what decodes untrusted files in child processes with limits of memory and time.

The web process itself never decodes a file of a user. A child sends JSON, and nothing else is read of it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from redis_consumer.errors import ConsumerError, InvalidImage, OutOfResources, describe
from redis_consumer.machine import shortage_of
from redis_consumer.worker.slot_process import cause_of, die_with_parent

logger = logging.getLogger(__name__)

#: Module that the process from which children are forked has imported.
_PRELOAD = "redis_consumer.web.view.preload"
#: Module of calls that name no other one.
_CALLS = "redis_consumer.web.view.making"
#: Bytes of one message of a child.
_MAX_MESSAGE_BYTES = 1 << 20
#: Seconds between two reports of progress.
_TICK_S = 0.2
#: Seconds after its last message in which a child ends.
_END_S = 5.0
_NICE = 5
#: Errors that a child reports by name. Others become `ConsumerError`.
_KINDS: dict[str, type[ConsumerError]] = {"InvalidImage": InvalidImage, "OutOfResources": OutOfResources}


@dataclass(frozen=True)
class DecoderLimits:
    """Limits of one child process.

    Attributes:
        memory_bytes: memory that it may take.
        time_s: seconds that it may run.
        file_bytes: size of each file that it writes.
    """

    memory_bytes: int = 2 << 30
    time_s: float = 600.0
    file_bytes: int = 64 << 30


def warm_up() -> None:
    """Start the process from which children are forked, since it loads libraries for some time."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([_PRELOAD])
    forkserver.ensure_running()


def decode(
    call: str,
    request: Mapping[str, Any],
    limits: DecoderLimits,
    *,
    name: str,
    tick: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Make a call in a child process, and wait for its end.

    Args:
        call: name of a function of `redis_consumer.web.view.making`, or ``module:function``.
        request: its argument, plain data.
        limits: of the child.
        name: the user's name for the file, for messages.
        tick: called with the share that is done, 0..1.

    Returns:
        What the function returns.

    Raises:
        InvalidImage: the file can't be read, or its decoder crashed.
        OutOfResources: it needs more memory, time or disk than allowed.
        ConsumerError: what else the function raises.
    """
    warm_up()
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_carry_out, args=(sender, call, dict(request), limits), daemon=True)
    with receiver:
        with sender:
            process.start()
        try:
            return _await_answer(process, receiver, limits, name, tick)
        finally:
            process.kill()
            process.join()
            process.close()


def _await_answer(
    process: BaseProcess, receiver: Connection, limits: DecoderLimits, name: str, tick: Callable[[float], None]
) -> dict[str, Any]:
    deadline = time.monotonic() + limits.time_s
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            message: dict[str, Any] = json.loads(receiver.recv_bytes(_MAX_MESSAGE_BYTES))
        except EOFError:
            process.join(_END_S)
            raise _ended(process.exitcode, name) from None
        if "share" in message:
            tick(float(message["share"]))
        elif "answer" in message:
            answer: dict[str, Any] = message["answer"]
            return answer
        else:
            raise _KINDS.get(message["kind"], ConsumerError)(str(message["problem"]))
    raise OutOfResources(
        f"{name}: could not be prepared within {limits.time_s:g} s; submit it all the same, or split the file"
    )


def _ended(code: int | None, name: str) -> ConsumerError:
    """Return the error for a child that ended without an answer."""
    cause = cause_of(code or 0, "")
    logger.warning("the process that read %s ended: %s", name, cause)
    if code in (-signal.SIGKILL, -signal.SIGXCPU, -signal.SIGXFSZ):
        return OutOfResources(
            f"{name}: the process that reads it was ended ({cause}), it took too much memory, time or disk; "
            "split the file, or ask for higher limits"
        )
    return InvalidImage(
        f"{name}: the process that reads it crashed ({cause}); the file may be damaged, export it again"
    )


def _carry_out(sender: Connection, call: str, request: Mapping[str, Any], limits: DecoderLimits) -> None:
    """Make the call. It runs in the child."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with_parent(int(parent.sentinel))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the web process, which kills this one
    _limit(limits)
    module, _, function = call.rpartition(":")

    told_at = 0.0

    def tick(share: float) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _TICK_S:
            told_at = time.monotonic()
            _send(sender, {"share": share})

    try:
        answer = {"answer": getattr(import_module(module or _CALLS), function)(request, tick)}
    except Exception as error:  # noqa: BLE001 - readers of damaged files raise nearly anything
        answer = _problem_of(error, request["name"], limits)
    _send(sender, answer)


def _problem_of(error: Exception, name: str, limits: DecoderLimits) -> dict[str, Any]:
    shortage = shortage_of(error, name)
    if shortage is not None and "disk" in str(shortage):
        return {"kind": "OutOfResources", "problem": f"{name}: there is no room for its view on the disk; free some"}
    if shortage is not None:
        allowed = f"{limits.memory_bytes >> 20} MB"
        return {
            "kind": "OutOfResources",
            "problem": f"{name}: needs more than the {allowed} allowed to be shown; split it",
        }
    if not isinstance(error, ConsumerError):
        logger.error("%s could not be read", name, exc_info=error)
        return {"kind": "", "problem": f"{name}: can't be prepared ({describe(error)})"}
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kind": next((kind for kind in kinds if kind in _KINDS), ""), "problem": str(error)}


def _send(sender: Connection, message: Mapping[str, Any]) -> None:
    sender.send_bytes(json.dumps(message).encode())


def _data_bytes() -> int:
    """Return the bytes of memory that this process has reserved for its data; 0 where the system doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(limits: DecoderLimits) -> None:
    """Set the limits of this process. Where the system has none of memory (macOS), only time is limited."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(limits.time_s) + 1),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_DATA, _data_bytes() + limits.memory_bytes),
    ):
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    with suppress(OSError):
        os.nice(_NICE)
