"""Classifies errors of Redis: outages, with what to do about them, and errors of a command."""

from __future__ import annotations

import re
import time
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from redis import exceptions

#: Seconds without a refusal after which the outage counts as ended.
FORGET_S = 60.0

#: Redis cannot be reached, or is not ready: it starts, fails over or has too many clients.
_UNAVAILABLE = (exceptions.ConnectionError, exceptions.TimeoutError)

#: Code of an error reply and what to do. A script's error has the code somewhere in its text.
_WRITES = {
    "OOM": "its memory is full: raise `maxmemory`, or delete keys",
    "MISCONF": "it cannot save to its disk: free space there",
    "NOREPLICAS": "too few replicas are connected: see min-replicas-to-write",
    "READONLY": "it is a replica: address the master, or a Sentinel",
}
_STATES = {
    "UNBLOCKED": "its role changed",
    "LOADING": "it is starting",
    "MASTERDOWN": "its master is down",
    "CLUSTERDOWN": "it is a cluster that is down; Redis Cluster is not supported",
    "TRYAGAIN": "it is a cluster; Redis Cluster is not supported",
    "BUSY": "a script runs for long: `redis-cli script kill` ends it",
}
_CODE = re.compile(rf"(?:^|-|: )({'|'.join([*_WRITES, *_STATES])})\b")
#: The code that redis-py removes from the text of an error.
_CODE_OF = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
}
#: The connection is healthy and the server is right, so both are kept after these.
_STAYS = frozenset({"OOM", "MISCONF", "BUSY"})
#: The texts of Redis 6.2, and of 7.0 or later, for NOPERM within a script.
_NO_PERMISSION = re.compile(r"^NOPERM\b|The user executing the script can't|ACL failure in script")
_NO_DATABASE = re.compile(r"DB index|invalid DB", re.IGNORECASE)
_CERTIFICATE = re.compile(r"CERTIFICATE|WRONG_VERSION_NUMBER|\bSSL\b.*\balert\b", re.IGNORECASE)


class WrongServer(exceptions.ConnectionError):
    """The server at the address cannot be used: a cluster, or a Sentinel without a clear master."""


@dataclass(frozen=True)
class Fault:
    """The reason why Redis did not execute a command.

    Attributes:
        text: the problem, and what to do.
        is_refusal: whether Redis answered with a refusal.
        is_of_settings: whether a setting is wrong, if Redis has never accepted this client. A setting can also become
            wrong later.
        is_of_writes: whether only writes are refused. A successful read then proves nothing.
        is_of_command: whether only some commands are refused.
        has_moved: whether another server, or a new connection, may be needed.
    """

    text: str
    is_refusal: bool = True
    is_of_settings: bool = False
    is_of_writes: bool = False
    is_of_command: bool = False
    has_moved: bool = True


def fault_of(error: exceptions.RedisError) -> Fault | None:
    """Return the outage that an error means; None for an error of the command itself."""
    text = str(error)
    if wrong := _of_settings(error, text):
        return wrong
    code, text = _code_of(error, text)
    if not code:
        return _lost(text) if isinstance(error, _UNAVAILABLE) else None
    hint = _WRITES.get(code) or _STATES[code]
    said = text if code in text else f"{code} {text}"
    return Fault(f"{said}; {hint}", is_of_writes=code in _WRITES, has_moved=code not in _STAYS)


def _code_of(error: exceptions.RedisError, text: str) -> tuple[str, str]:
    """Return the code of an error reply, empty for none, and the text without what comes before it."""
    for kind, code in _CODE_OF.items():
        if isinstance(error, kind):
            return code, text
    found = _CODE.search(text) if isinstance(error, exceptions.ResponseError) else None
    if found is None:
        return "", text
    # A script's error names the script and the line before.
    said = text[found.start(1) :]
    is_other = found[1] == "BUSY" and "SCRIPT KILL" not in said
    return "" if is_other else found[1], said


def _of_settings(error: exceptions.RedisError, text: str) -> Fault | None:
    if isinstance(error, WrongServer):
        return Fault(text, is_of_settings=True)
    if isinstance(error, exceptions.AuthenticationError):
        said = "it wants a password" if text.startswith("HELLO must") else text
        hint = "set REDIS_PASSWORD to its password, and REDIS_USERNAME to the name of an ACL user"
        return Fault(f"{said}; {hint}", is_of_settings=True)
    if isinstance(error, exceptions.NoPermissionError) or _NO_PERMISSION.search(text):
        hint = "let the ACL user run it, see `redis-consumer doctor`"
        return Fault(f"NOPERM: {text}; {hint}", is_of_settings=True, is_of_command=True, has_moved=False)
    if isinstance(error, exceptions.ResponseError) and _NO_DATABASE.search(text):
        return Fault(f"{text}; let REDIS_URL end with the number of a database that it has", is_of_settings=True)
    return None


def _lost(text: str) -> Fault:
    if _CERTIFICATE.search(text):
        hint = "check the scheme of REDIS_URL, REDIS_CA, REDIS_CLIENT_CERT and REDIS_CLIENT_KEY"
        return Fault(f"TLS: {text}; {hint}", is_of_settings=True)
    return Fault(text, is_refusal=False)


@dataclass
class Outage:
    """The time from the first failed command to the first command that proves the end.

    Attributes:
        fault: the latest.
        command: the command that was refused.
        since: when it began, by the monotonic clock.
        seen_at: when the latest command failed.
        is_logged: whether it has been logged.
    """

    fault: Fault
    command: Hashable
    since: float = field(default_factory=time.monotonic)
    seen_at: float = field(default_factory=time.monotonic)
    is_logged: bool = False

    def note(self, fault: Fault, command: Hashable) -> bool:
        """Record another failed command. A refused write remains until a write succeeds.

        Returns:
            Whether to log it: nothing was logged yet, or a setting must be changed now.
        """
        is_news = not self.is_logged or (fault.is_of_settings and not self.fault.is_of_settings)
        self.fault = replace(fault, is_of_writes=fault.is_of_writes or self.fault.is_of_writes)
        self.command, self.seen_at, self.is_logged = command, time.monotonic(), True
        return is_news

    def is_disproved_by(self, command: Hashable) -> bool:
        """Whether the success of a command proves the end. After refused writes, only a successful write does."""
        is_same = command == self.command or time.monotonic() - self.seen_at > FORGET_S
        return is_same or not self.fault.is_of_command

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.since
