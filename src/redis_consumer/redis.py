"""How commands reach Redis: found directly or by Sentinel, waited for while it is away; knows no jobs."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_consumer import metrics
from redis_consumer.errors import RedisUnavailable, SettingsError

logger = logging.getLogger(__name__)

#: Moves that may have happened although no reply came. A second try could take a second job, so the caller
#: has to look at what happened first.
NEVER_RETRIED = frozenset({"blmove", "blpop", "brpop", "brpoplpush", "lmove", "lpop", "rpop", "rpoplpush"})

#: The server is there but doesn't serve us now: starting, failing over, or running a long script.
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.OutOfMemoryError,
)

#: The same as error replies, which scripts wrap in texts of their own: full memory, failing disk, too few replicas.
_AWAY_REPLY = re.compile(
    r"\b(OOM|MISCONF|NOREPLICAS|READONLY|LOADING|MASTERDOWN|TRYAGAIN|CLUSTERDOWN|BUSY\b.*SCRIPT KILL)\b", re.DOTALL
)

#: A reply that is later than this counts as none; longer than any blocking move of ours.
SOCKET_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 3.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.01, 5.0
#: Seconds after which a connection may have been closed by the server.
FRESH_S = 1.0
#: Seconds that a blocking command may wait, so that its reply comes before the socket gives up.
MAX_BLOCK_S = SOCKET_TIMEOUT_S - 5.0


class RedisClient:
    """A connection that outlives restarts and failovers of Redis.

    Every command of redis-py is an attribute: ``client.hgetall(key)``. All of them, reads too, go to the master,
    since a replica may not have what we just wrote. Texts are decoded as UTF-8. Nothing connects before the first
    command.

    A command that finds Redis away waits for it with growing, jittered pauses and logs once that it waits and once
    that it goes on; blocking and popping moves (`NEVER_RETRIED`) raise at once.

    Args:
        host: name or address of a Redis server or of a Sentinel.
        port: its port.
        backoff: first pause between tries, in seconds; pauses double up to 5 s.
        password: sent where given, to Sentinel's Redis servers as well.
        deadline_s: seconds to wait for an absent Redis, None for ever.

    Raises:
        RedisUnavailable: (commands) Redis stayed away for `deadline_s`, or `stop_waiting` was called.
        SettingsError: (commands) Redis refuses the password, or wants one.
    """

    def __init__(
        self,
        host: str,
        port: int | str,
        backoff: float = 1,
        *,
        password: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.host = host
        self.port = int(port)
        self.backoff = float(backoff)
        self.deadline_s = deadline_s
        #: How this client's connections are called in CLIENT LIST.
        self.name = f"redis-consumer-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._password = password or None
        self._lock = threading.Lock()
        self._master: redis.Redis | None = None
        self._away_since: float | None = None
        self._stopping = threading.Event()
        self._own = threading.local()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def command(*args: Any, **kwargs: Any) -> Any:
            return self._run(name, args, kwargs)

        return command

    @property
    def address(self) -> str:
        """``host:port`` as given, for messages."""
        return f"{self.host}:{self.port}"

    @property
    def _redis_master(self) -> redis.Redis:
        """The plain redis-py client of the current master; plug-ins use it under this name."""
        with self._lock:
            if self._master is None:
                self._master = self._find_master()
            return self._master

    @classmethod
    def _get_redis_client(cls, host: str, port: int, password: str | None = None) -> redis.Redis:
        """Make the plain client of one server; tests and plug-ins replace it."""
        # redis-py's own retries would hide how long Redis is away, and would repeat moves.
        return redis.Redis(
            host=host,
            port=port,
            password=password,
            decode_responses=True,
            # Keys and names come from strangers; what isn't UTF-8 survives the way there and back.
            encoding_errors="surrogateescape",
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
        )

    def stop_waiting(self) -> None:
        """Let every command, waiting or to come, raise instead of wait. Safe in a signal handler."""
        self._stopping.set()

    def unblock(self) -> None:
        """Let a blocking command of this client, in another thread, return at once as if its time were up.

        Raises:
            RedisUnavailable: as every command.
        """
        for connection in self.client_list():
            if connection.get("name") == self.name and "b" in connection.get("flags", ""):
                self.client_unblock(connection["id"])

    def describe(self) -> str:
        """Say whether the address is a Redis or a Sentinel, and which server is the master."""
        kwargs = self._redis_master.connection_pool.connection_kwargs
        found = f"{kwargs['host']}:{kwargs['port']}"
        return f"Redis at {found}" if found == self.address else f"Sentinel at {self.address}, master {found}"

    def close(self) -> None:
        """Give back the connections."""
        with self._lock:
            if self._master is not None:
                self._master.close()
            self._master = None

    def end_thread(self) -> None:
        """Give back this thread's connection, where a thread ends before the client does."""
        master, self._own.master = getattr(self._own, "master", None), None
        if master is not None:
            master.connection_pool.release(self._own.connection)

    def _find_master(self) -> redis.Redis:
        client = self._connect(self.host, self.port)
        try:
            masters = client.sentinel_masters()
        except exceptions.ResponseError:
            return client  # a plain Redis knows no SENTINEL
        client.close()
        if not masters:
            raise exceptions.ConnectionError(f"Sentinel at {self.address} knows no master")
        master = next(iter(masters.values() if isinstance(masters, dict) else masters))
        return self._connect(master["ip"], int(master["port"]))

    def _connect(self, host: str, port: int) -> redis.Redis:
        client = self._get_redis_client(host, port, self._password)
        options = client.connection_pool.connection_kwargs
        options["client_name"] = self.name
        if self.deadline_s is not None:
            # A server that is up but doesn't answer holds nobody up for longer than one that is down.
            options["socket_timeout"] = min(SOCKET_TIMEOUT_S, self.deadline_s)
            options["socket_connect_timeout"] = min(CONNECT_TIMEOUT_S, self.deadline_s)
        return client

    def batch(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together and give their replies as Redis gives them; all again where it was away.

        They go over a connection of this thread alone, past redis-py's own way for a command, which takes longer
        than Redis takes for a script.

        Args:
            commands: name and arguments of each; all must bear to be repeated.

        Returns:
            What Redis gives to each; the error itself where it doesn't know a script.
        """
        packed = b"".join(map(_packed, commands))
        replies: list[Any] = self._retried("batch", lambda master: self._exchange(master, packed, len(commands)))
        return replies

    def _exchange(self, master: redis.Redis, commands: bytes, count: int) -> list[Any]:
        connection = self._connection_of(master)
        try:
            connection.send_packed_command([commands])
            replies = [_reply(connection) for _ in range(count)]
        except BaseException:
            # A signal may have come between command and reply: the next one would get this one's.
            connection.disconnect()
            raise
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError) and not isinstance(reply, exceptions.NoScriptError):
                raise reply
        return replies

    def _connection_of(self, master: redis.Redis) -> Any:
        """This thread's connection to the master; a new one where the server has closed it meanwhile."""
        now = time.monotonic()
        if getattr(self._own, "master", None) is not master:
            self._own.connection = master.connection_pool.get_connection()
            self._own.master = master
        elif now - self._own.used_at > FRESH_S and _is_stale(self._own.connection):
            self._own.connection.disconnect()
        self._own.used_at = now
        return self._own.connection

    def _run(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = _to_wire(args), _to_wire(kwargs)
        return self._retried(name, lambda master: getattr(master, name)(*args, **kwargs))

    def _retried(self, name: str, send: Callable[[redis.Redis], Any]) -> Any:
        started, tries = time.monotonic(), 0
        pause_s = max(self.backoff, MIN_PAUSE_S)
        while True:
            try:
                reply = send(self._redis_master)
            except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
                raise SettingsError(
                    f"Redis at {self.address}: refuses us ({error}); set REDIS_PASSWORD to its password"
                ) from error
            except (*_AWAY, exceptions.ResponseError) as error:
                if not isinstance(error, _AWAY) and not _AWAY_REPLY.search(str(error)):
                    raise
                self._note_away(error)
                if name in NEVER_RETRIED or self._is_over(started, pause_s):
                    raise self._unavailable(name, error) from error
            else:
                self._note_back()
                return reply
            metrics.RETRIES.add("redis")
            # The first try again is at once: after a dropped connection a new one is likely to do.
            if tries:
                self._stopping.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            tries += 1

    def _is_over(self, started: float, pause_s: float) -> bool:
        is_late = self.deadline_s is not None and time.monotonic() - started + pause_s > self.deadline_s
        return is_late or self._stopping.is_set()

    def _unavailable(self, name: str, error: Exception) -> RedisUnavailable:
        return RedisUnavailable(
            f"Redis at {self.address}: no reply to {name.upper()} ({error}); check REDIS_HOST and REDIS_PORT, "
            "and that the server is up"
        )

    def _note_away(self, error: Exception) -> None:
        # The next try asks the Sentinel anew, which may have another master by then.
        self.close()
        with self._lock:
            if self._away_since is not None:
                return
            self._away_since = time.monotonic()
        logger.warning("Redis at %s is away (%s); waiting for it", self.address, error)

    def _note_back(self) -> None:
        if self._away_since is None:
            return
        with self._lock:
            away_since, self._away_since = self._away_since, None
        if away_since is not None:
            logger.warning("Redis at %s is back after %.1f s", self.address, time.monotonic() - away_since)


def _is_stale(connection: Any) -> bool:
    try:
        return bool(connection.can_read())
    except exceptions.ConnectionError:
        return True


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        return error


def _packed(command: Sequence[Any]) -> bytes:
    try:
        return bytes(hiredis.pack_command(tuple(command)))
    except UnicodeEncodeError:
        return bytes(hiredis.pack_command(tuple(map(_to_wire, command))))


def _to_wire(value: Any) -> Any:
    """Encode the texts of a command that aren't ASCII: hiredis refuses what came out of a name that isn't UTF-8."""
    if type(value) is str:
        return value if value.isascii() else value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_to_wire(key): _to_wire(item) for key, item in value.items()}
    return type(value)(map(_to_wire, value)) if type(value) in (list, tuple) else value


class Script:
    """A Lua script, sent by its digest; with its text where the server hasn't seen it yet (restart, failover).

    Args:
        paths: the script's file, after those of functions that it calls.
    """

    def __init__(self, *paths: Path) -> None:
        self.text = "".join(path.read_text(encoding="utf-8") for path in paths)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Any, keys: list[str], arguments: list[str]) -> Any:
        """Run it on a `RedisClient` or any client of redis-py."""
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
        """The command for a server that has seen the script."""
        return ["EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments]

    @property
    def by_text(self) -> list[Any]:
        """The command for any server."""
        return ["EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments]


def run_together(client: RedisClient, calls: list[Call], *commands: Sequence[Any]) -> list[Any]:
    """Run scripts and other commands, one after the other, in one round trip; give all replies.

    Args:
        client: whose connection to use.
        calls: the scripts; they must bear to be repeated.
        commands: what follows them.
    """
    with _wrong_types_in_words([key for call in calls for key in call.keys]):
        replies = client.batch(*(call.by_digest for call in calls), *commands)
        # Only these again, and what follows: a claim that is repeated takes a second job.
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
