"""How are a few pages served by HTTP from within a loop that has other things to do?"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from redis_consumer.errors import ConsumerError, SettingsError

logger = logging.getLogger(__name__)

#: Bytes of a request's head; of one that is longer, the answer may get lost on its way.
REQUEST_BYTES = 1 << 16
MAX_CONNECTIONS = 32
#: Seconds in which a request must come, and its answer be taken.
REQUEST_S = 5.0


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"

    @classmethod
    def of_data(cls, data: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Reply:
        """Data as JSON."""
        return cls(json.dumps(data).encode() + b"\n", status)

    @property
    def message(self) -> bytes:
        """The whole answer as it is sent."""
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n".encode() + self.body


@dataclass(eq=False)
class Connection:
    """Somebody who asks: what has come of the request so far, and what is still to be sent."""

    socket: socket.socket
    since: float
    asked: bytes = b""
    unsent: bytes = b""


def kept(page: Callable[[], Reply], for_s: float) -> Callable[[], Reply]:
    """Hand out a page, or the error it ended with, for some seconds after it came: who asks at once waits for one."""
    made: Reply | Exception
    until = float("-inf")

    def give() -> Reply:
        nonlocal made, until
        if time.monotonic() < until:
            if isinstance(made, Exception):
                raise made
            return made
        try:
            made = page()
        except Exception as error:
            made = error
            raise
        finally:
            until = time.monotonic() + for_s
        return made

    return give


class Pages:
    """A small HTTP server within a loop that selects: it answers as long as that loop turns, so it can't lie.

    Nobody holds the loop up: who asks or takes the answer slowly is served in pieces, and is hung up on after some
    seconds.

    Args:
        address: ``host:port`` to listen at; port 0 for a free one.
        pages: what answers ``GET`` by path.
        selector: of the loop; what is registered there has a function to call as its data.
        name: what comes before the address in messages, such as ``HEALTH_ADDRESS=``.

    Raises:
        SettingsError: the address can't be listened at.
    """

    def __init__(
        self, address: str, pages: Mapping[str, Callable[[], Reply]], selector: selectors.BaseSelector, *, name: str
    ) -> None:
        host, _, port = address.rpartition(":")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            if not (port.isdecimal() and int(port) < 65536):
                raise ValueError(port)
            self._listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=MAX_CONNECTIONS)
        except (OSError, ValueError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else "no HOST:PORT"
            raise SettingsError(
                f"{name}{address}: can't listen there ({reason}); choose a free port of an "
                "address of this machine, e.g. 0.0.0.0:8080"
            ) from error
        self._listener.setblocking(False)
        self._pages = pages
        self._selector = selector
        self._connections: list[Connection] = []
        self._reserve = _reserve()
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        for connection in list(self._connections):
            self._end(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._use_reserve()

    def leave(self) -> None:
        """Close what a forked process has of it."""
        for connection in self._connections:
            connection.socket.close()
        self._listener.close()
        self._use_reserve()

    def _use_reserve(self) -> None:
        """Free the file that is held for the moment when no other can be opened."""
        if self._reserve >= 0:
            os.close(self._reserve)
        self._reserve = -1

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                # It would be asked again at once, without end. The answer tells what is wrong with this machine.
                self._use_reserve()
                for oldest in self._connections[:1]:
                    self._end(oldest)
                accepted, _ = self._listener.accept()
            self._make_room()
            accepted.setblocking(False)
            connection = Connection(accepted, time.monotonic())
            self._connections.append(connection)
            self._selector.register(accepted, selectors.EVENT_READ, lambda: self._answer(connection))

    def _make_room(self) -> None:
        """Hang up on those who ask nothing or take nothing, and on the oldest where there are too many."""
        now = time.monotonic()
        for connection in list(self._connections):
            if now - connection.since > REQUEST_S or len(self._connections) >= MAX_CONNECTIONS:
                self._end(connection)

    def _answer(self, connection: Connection) -> None:
        """Answer as soon as the whole head of the request has come: a reset would follow if some were left unread."""
        if connection not in self._connections:
            return
        try:
            part = connection.socket.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end(connection)
            return
        connection.asked += part
        if part and b"\r\n\r\n" not in connection.asked and len(connection.asked) < REQUEST_BYTES:
            return
        first_line = connection.asked.split(b"\r\n", 1)[0]
        connection.unsent = self._reply(first_line.decode("latin-1").split(" ")).message
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, lambda: self._send(connection))
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        """Send what the other side takes now; what is left, when it takes more."""
        if connection not in self._connections:
            return
        with contextlib.suppress(OSError):
            try:
                sent = connection.socket.send(connection.unsent)
            except BlockingIOError:
                return
            connection.unsent = connection.unsent[sent:]
            if connection.unsent:
                return
        self._end(connection)

    def _reply(self, request: list[str]) -> Reply:
        method, path = (*request, "", "")[:2]
        page = self._pages.get(path.split("?")[0]) if method == "GET" else None
        if page is None:
            names = " or ".join(f"GET {name}" for name in self._pages)
            return Reply.of_data({"error": f"ask {names}"}, HTTPStatus.NOT_FOUND)
        try:
            return page()
        except Exception as error:
            logger.warning("GET %s: %s", path, error, exc_info=not isinstance(error, ConsumerError))
            return Reply.of_data({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _end(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._reserve < 0:
            self._reserve = _reserve()


def _reserve() -> int:
    """Hold a file open; -1 where none can be opened."""
    with contextlib.suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY)
    return -1
