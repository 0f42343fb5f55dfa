"""Sends commands to Redis, found directly or by Sentinel, and retries them during an outage."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import hiredis
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_consumer import metrics
from redis_consumer.errors import RedisUnavailable, SettingsError
from redis_consumer.redis_faults import Fault, Outage, fault_of
from redis_consumer.redis_servers import Access, is_sentinel, master_of, usual_access

logger = logging.getLogger(__name__)

#: Moves that may have happened although no reply came. A second try could take a second job, so the caller
#: has to look at what happened first.
NEVER_RETRIED = frozenset({"blmove", "blpop", "brpop", "brpoplpush", "lmove", "lpop", "rpop", "rpoplpush"})

#: Seconds after which a missing reply counts as a failure. Longer than the package's blocking moves.
SOCKET_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 3.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.01, 5.0
#: A write that changes nothing, because the key does not exist. It fails if Redis refuses writes.
PROBE_KEY = "redis-consumer:probe"
#: Shortest time between two such writes, in seconds.
PROBE_S = 0.5
#: Seconds after which a connection may have been closed by the server.
FRESH_S = 1.0
#: Seconds that a blocking command may wait, so that its reply comes before the socket gives up.
MAX_BLOCK_S = SOCKET_TIMEOUT_S - 5.0


class RedisClient:
    """A connection that outlives restarts and failovers of Redis.

    Every command of redis-py is an attribute: ``client.hgetall(key)``. All commands, also reads, go to the master,
    because a replica may not have the latest writes. Texts are decoded as UTF-8. Nothing connects before the first
    command.

    During an outage, a command is retried with growing, randomised pauses. Refused writes are also an outage. The start
    and the end of an outage are logged once each. Blocking and popping moves (`NEVER_RETRIED`) are not retried. They
    raise an error, after a pause if the last move failed too.

    Args:
        host: name or address of a Redis server or of a Sentinel; or the path of a socket, which begins with ``/``.
        port: its port; a socket has none.
        backoff: first pause between tries, in seconds; pauses double up to 5 s.
        password: replaces the password of `access`.
        access: user, TLS and similar. By default, the settings apply to the server that they name, and nothing to other
            servers.
        deadline_s: seconds to wait for an unavailable Redis; None for no limit.

    Raises:
        RedisUnavailable: (commands) the outage lasted for `deadline_s`, or `stop_waiting` was called.
        SettingsError: (commands) Redis refuses the user or the password, and has never served this client.
    """

    def __init__(
        self,
        host: str,
        port: int | str,
        backoff: float = 1,
        *,
        password: str | None = None,
        access: Access | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.host = host
        self.port = int(port)
        self.backoff = float(backoff)
        self.deadline_s = deadline_s
        #: Name of this client's connections in CLIENT LIST.
        self.name = f"redis-consumer-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        access = access or usual_access(self.host, self.port)
        self._access = replace(access, password=password) if password else access
        self._lock = threading.Lock()
        self._master: redis.Redis | None = None
        self._outage: Outage | None = None
        self._probe_at = 0.0
        #: Number of moves that failed in a row.
        self._failed_moves = 0
        self._is_served = self._has_sentinel = False
        self._stopping = threading.Event()
        self._own = threading.local()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def command(*args: Any, **kwargs: Any) -> Any:
            return self._run(name, args, kwargs)

        return command

    @property
    def has_outage(self) -> bool:
        """Whether a command of this client has failed, and no later command has proved that the outage ended."""
        return self._outage is not None

    @property
    def address(self) -> str:
        """``host:port`` as given, or the path of the socket, for messages."""
        return address_of(self.host, self.port)

    @property
    def _redis_master(self) -> redis.Redis:
        """The plain redis-py client of the current master; plug-ins use it under this name."""
        with self._lock:
            if self._master is None:
                self._master = self._find_master()
            return self._master

    @classmethod
    def _get_redis_client(cls, host: str, port: int, password: str | None = None, **options: Any) -> redis.Redis:
        """Make the plain client of one server; tests and plug-ins replace it."""
        place: dict[str, Any] = {"unix_socket_path": host} if host.startswith("/") else {"host": host, "port": port}
        # redis-py's own retries would hide how long Redis is unavailable, and would repeat moves.
        return redis.Redis(
            **place,
            password=password,
            decode_responses=True,
            # Keys and names come from other software; what isn't UTF-8 is read and written unchanged.
            encoding_errors="surrogateescape",
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            **options,
        )

    def stop_waiting(self) -> None:
        """Make every waiting or later command raise an error instead of waiting. Safe in a signal handler."""
        self._stopping.set()

    def note_served(self) -> None:
        """Record that Redis accepts this worker. A password that is refused later counts as an outage."""
        self._is_served = True

    def unblock(self) -> None:
        """End a blocking command of this client in another thread, as if it had timed out.

        Raises:
            RedisUnavailable: Redis is unavailable, as for every command.
        """
        for connection in self.client_list():
            if connection.get("name") == self.name and "b" in connection.get("flags", ""):
                self.client_unblock(connection["id"])

    def describe(self) -> str:
        """Describe whether the address is a Redis or a Sentinel, and which server is the master."""
        kwargs = self._redis_master.connection_pool.connection_kwargs
        found = address_of(kwargs.get("path") or kwargs["host"], kwargs.get("port", 0))
        found = f"{found} by TLS" if self._access.is_encrypted else found
        return f"Redis at {found}" if not self._has_sentinel else f"Sentinel at {self.address}, master {found}"

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._master is not None:
                self._master.close()
            self._master = None

    def end_thread(self) -> None:
        """Close this thread's connection, if the thread ends before the client."""
        master, self._own.master = getattr(self._own, "master", None), None
        if master is not None:
            master.connection_pool.release(self._own.connection)

    def _find_master(self) -> redis.Redis:
        client = self._connect(self.host, self.port, replace(self._access, db=0))
        try:
            self._has_sentinel = is_sentinel(client)
        except exceptions.AuthenticationError:
            client.close()
            client = self._anonymous_sentinel()
        except exceptions.RedisError:
            client.close()
            raise
        if not self._has_sentinel and not self._access.db:
            return client
        host, port = master_of(client, self._access.master_name) if self._has_sentinel else (self.host, self.port)
        client.close()
        return self._connect(host, port, self._access)

    def _anonymous_sentinel(self) -> redis.Redis:
        """Make a client without user and password, for a Sentinel that has no users."""
        client = self._connect(self.host, self.port, self._access.anonymous())
        try:
            self._has_sentinel = is_sentinel(client)
        except exceptions.RedisError:
            self._has_sentinel = False
        if not self._has_sentinel:
            client.close()
            client = self._connect(self.host, self.port, self._access)
            client.ping()  # raises what it did before
        return client

    def _connect(self, host: str, port: int, access: Access) -> redis.Redis:
        client = self._get_redis_client(host, port, access.password or None, **access.options())
        options = client.connection_pool.connection_kwargs
        options["client_name"] = self.name
        if self.deadline_s is not None:
            # A server that is up but doesn't answer costs no more time than one that is down.
            options["socket_timeout"] = min(SOCKET_TIMEOUT_S, self.deadline_s)
            options["socket_connect_timeout"] = min(CONNECT_TIMEOUT_S, self.deadline_s)
        return client

    def batch(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together and return their replies unchanged. If Redis was unavailable, send all again.

        They use a connection of this thread and bypass redis-py's handling of commands, which takes longer than a
        script in Redis.

        Args:
            commands: name and arguments of each. It must be safe to repeat them.

        Returns:
            The reply to each; the error itself if Redis doesn't know a script.
        """
        packed = b"".join(map(_packed, commands))
        which = tuple((*command[:2],) for command in commands)
        replies: list[Any] = self._retried("batch", lambda master: self._exchange(master, packed, len(commands)), which)
        return replies

    def _exchange(self, master: redis.Redis, commands: bytes, count: int) -> list[Any]:
        connection = self._connection_of(master)
        try:
            connection.send_packed_command([commands])
            replies = [_reply(connection) for _ in range(count)]
        except BaseException:
            # After a signal between command and reply, the next command would get this reply.
            connection.disconnect()
            raise
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError) and not isinstance(reply, exceptions.NoScriptError):
                raise reply
        return replies

    def _connection_of(self, master: redis.Redis) -> Any:
        """Return this thread's connection to the master; a new one if the server has closed it."""
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

    def _retried(self, name: str, send: Callable[[redis.Redis], Any], command: Hashable = None) -> Any:
        """Send until there is a reply. `command` distinguishes commands of the same name."""
        started, tries = time.monotonic(), 0
        command = command or name
        while True:
            try:
                master = self._redis_master
                reply = send(master)
            except exceptions.RedisError as error:
                fault = fault_of(error)
                if fault is None:
                    raise
                if fault.is_of_settings and not self._is_served:
                    raise SettingsError(f"Redis at {self.address}: {fault.text}") from error
                self._note_outage(fault, command)
                if name in NEVER_RETRIED:
                    self._failed_moves += 1
                    self._pause(self._failed_moves - 1, self.deadline_s)
                if name in NEVER_RETRIED or self._is_over(started, tries):
                    raise self._unavailable(name, fault) from error
            else:
                self._note_reply(master, name, command)
                return reply
            metrics.RETRIES.add("redis")
            self._pause(tries)
            tries += 1

    def _pause_s(self, tries: int) -> float:
        """Return the pause after a number of retries. The first retry is immediate, because a new connection is often
        enough.
        """
        pause_s = max(self.backoff, MIN_PAUSE_S) * 2.0 ** min(tries - 1, 10)
        return min(pause_s, MAX_PAUSE_S) if tries else 0.0

    def _pause(self, tries: int, at_most_s: float | None = None) -> None:
        pause_s = self._pause_s(tries) * random.uniform(0.5, 1.0)
        self._stopping.wait(pause_s if at_most_s is None else min(pause_s, at_most_s))

    def _is_over(self, started: float, tries: int) -> bool:
        waited_s = time.monotonic() - started + self._pause_s(tries)
        return self._stopping.is_set() or (self.deadline_s is not None and waited_s > self.deadline_s)

    def _unavailable(self, name: str, fault: Fault) -> RedisUnavailable:
        command = "commands" if name == "batch" else name.upper()
        if fault.is_refusal:
            return RedisUnavailable(f"Redis at {self.address}: refuses {command} ({fault.text})")
        return RedisUnavailable(
            f"Redis at {self.address}: no reply to {command} ({fault.text}); check REDIS_HOST and REDIS_PORT, "
            "or REDIS_URL, and that the server is up"
        )

    def _note_outage(self, fault: Fault, command: Hashable) -> None:
        if fault.has_moved:
            # The next try asks the Sentinel again, which may have another master by then.
            self.close()
        with self._lock:
            if self._outage is None:
                self._outage = Outage(fault, command)
                return  # a new connection is likely to do
            is_news = self._outage.note(fault, command)
        if is_news:
            what = "Redis at %s refuses commands" if fault.is_refusal else "Cannot reach Redis at %s"
            logger.warning(f"{what} (%s); retrying", self.address, fault.text)

    def _note_reply(self, master: redis.Redis, name: str, command: Hashable) -> None:
        self._is_served = True
        if self._failed_moves and name in NEVER_RETRIED:
            self._failed_moves = 0
        outage = self._outage
        if outage is None or not outage.is_disproved_by(command):
            return
        # A move is a write itself.
        if outage.fault.is_of_writes and name not in NEVER_RETRIED and not self._can_write(master):
            return
        with self._lock:
            is_first, self._outage = self._outage is outage, None
        if is_first and outage.is_logged:
            logger.warning("Redis at %s is available again after %.1f s", self.address, outage.seconds)

    def _can_write(self, master: redis.Redis) -> bool:
        """Check whether Redis accepts a write now."""
        now = time.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + PROBE_S
        try:
            master.zadd(PROBE_KEY, {"": 0}, xx=True)
        except exceptions.RedisError as error:
            return fault_of(error) is None
        return True


def address_of(host: str, port: int) -> str:
    """Format an address for messages: ``host:port``, ``[IPv6 address]:port``, or the path of a socket."""
    if host.startswith("/"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    """Encode the texts of a command that aren't ASCII. hiredis refuses texts that were read from names that aren't
    UTF-8.
    """
    if type(value) is str:
        return value if value.isascii() else value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_to_wire(key): _to_wire(item) for key, item in value.items()}
    return type(value)(map(_to_wire, value)) if type(value) in (list, tuple) else value
