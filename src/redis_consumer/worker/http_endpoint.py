"""Serves health probes and metrics by HTTP, from within a loop that also does other work."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from redis_consumer import metrics
from redis_consumer.errors import ConsumerError, SettingsError
from redis_consumer.text import cut

logger = logging.getLogger(__name__)

#: Largest head of a request, in bytes.
REQUEST_BYTES = 1 << 16
#: Bytes of a body, or of a long head, that are read and dropped after the answer. Otherwise the answer could be lost.
DROPPED_BYTES = 1 << 22
MAX_CONNECTIONS = 32
#: Seconds in which a request must arrive and its answer must be read.
REQUEST_S = 5.0

_METHODS = ("GET", "HEAD")
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.[0-9]")
_NOT_ASCII = re.compile(rb"[^ -~\r\n]")
_HEAD_END = re.compile(rb"\n\r?\n")


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        body: the content.
        status: of the answer.
        content_type: of the body.
        is_head: whether only the head is sent.
    """

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"
    is_head: bool = False

    @classmethod
    def of_data(cls, data: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Reply:
        """Make an answer of data as JSON."""
        return cls(json.dumps(data).encode() + b"\n", status)

    @property
    def message(self) -> bytes:
        """The whole answer as it is sent."""
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            head += f"Allow: {', '.join(_METHODS)}\r\n"
        head += f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if self.is_head else self.body)


@dataclass(eq=False)
class Connection:
    """A connection of a client: the part of its request that has arrived, and what is still to be sent."""

    socket: socket.socket
    since: float
    asked: bytes = b""
    unsent: bytes = b""
    dropped: int = 0


def fault_of(asked: bytes, *, is_over: bool = False, is_late: bool = False) -> HTTPStatus | None:
    """Check a request.

    Args:
        asked: the part that has arrived.
        is_over: whether the client sends no more.
        is_late: whether it took too long.

    Returns:
        ``OK`` for a request that can be answered, the status of its error otherwise; None if more must arrive first.
    """
    line = asked.split(b"\n", 1)[0]
    if _NOT_ASCII.search(line):
        return HTTPStatus.BAD_REQUEST
    is_whole = _HEAD_END.search(asked, 0, REQUEST_BYTES) is not None
    if not is_whole and len(asked) >= REQUEST_BYTES:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if not is_whole and not is_over:
        return HTTPStatus.REQUEST_TIMEOUT if is_late else None
    request = _REQUEST_LINE.fullmatch(line.decode("ascii").rstrip("\r"))
    if request is None:
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.OK if request[3] == "1" else HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


def kept(page: Callable[[], Reply], for_s: float) -> Callable[[], Reply]:
    """Return a page that keeps its last result, also an error, for some seconds."""
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


class HttpEndpoint:
    """A small HTTP server within a loop that selects. It answers only while that loop runs, as a health probe must.

    No client can delay the loop: slow requests and answers are handled in parts, and closed after some seconds.

    Args:
        address: ``host:port`` to listen at. Port 0 means a free one.
        pages: makes the answer to ``GET``, by path.
        selector: of the loop, which calls the data of each ready entry.
        name: written before the address in messages, such as ``HEALTH_ADDRESS=``.

    Raises:
        SettingsError: it can't listen at this address.
    """

    def __init__(
        self, address: str, pages: Mapping[str, Callable[[], Reply]], selector: selectors.BaseSelector, *, name: str
    ) -> None:
        host, _, port = address.rpartition(":")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            if not (re.fullmatch("[0-9]{1,5}", port) and int(port) < 65536):
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
        """The port at which it listens."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Close all connections and stop listening."""
        for connection in list(self._connections):
            self._end(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._use_reserve()

    def leave(self) -> None:
        """Close the copies that a forked process has."""
        for connection in self._connections:
            connection.socket.close()
        self._listener.close()
        self._use_reserve()

    def _use_reserve(self) -> None:
        """Close the file that is kept open for the case that no other can be opened."""
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
                # The selector would report it again and again. The answer says what is wrong with this machine.
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
        """Close connections that are too old, and the oldest ones if there are too many."""
        now = time.monotonic()
        for connection in list(self._connections):
            if now - connection.since > REQUEST_S or len(self._connections) >= MAX_CONNECTIONS:
                self._end(connection)

    def _answer(self, connection: Connection) -> None:
        """Answer as soon as the whole head of the request has arrived, or it is known to be wrong."""
        part = self._received(connection)
        if part is None:
            return
        connection.asked = (connection.asked + part).lstrip(b"\r\n")
        if not part and not connection.asked:
            self._end(connection)
            return
        is_late = time.monotonic() - connection.since > REQUEST_S
        fault = fault_of(connection.asked, is_over=not part, is_late=is_late)
        if fault is None:
            return
        if fault == HTTPStatus.OK:
            reply = self._reply(*connection.asked.decode("latin-1").split(" ")[:2])
        else:
            reply = Reply.of_data({"error": fault.phrase}, fault)
        connection.unsent = reply.message
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, lambda: self._send(connection))
        self._send(connection)

    def _received(self, connection: Connection) -> bytes | None:
        """Read what has arrived; empty if the client sends no more, None if there is nothing to do."""
        if connection not in self._connections:
            return None
        try:
            return connection.socket.recv(REQUEST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self._end(connection)
            return None

    def _send(self, connection: Connection) -> None:
        """Send what the client accepts now, and the rest later."""
        if connection not in self._connections:
            return
        try:
            sent = connection.socket.send(connection.unsent)
            connection.unsent = connection.unsent[sent:]
            if not connection.unsent:
                # If the rest were left unread, a client that still sends would get a reset and lose the answer.
                connection.socket.shutdown(socket.SHUT_WR)
                self._selector.modify(connection.socket, selectors.EVENT_READ, lambda: self._drop(connection))
        except BlockingIOError:
            return
        except OSError:
            self._end(connection)

    def _drop(self, connection: Connection) -> None:
        """Read and drop what arrives after the answer, until the client closes the connection."""
        part = self._received(connection)
        if part is None:
            return
        connection.dropped += len(part)
        if not part or connection.dropped > DROPPED_BYTES:
            self._end(connection)

    def _reply(self, method: str, target: str) -> Reply:
        # A proxy's form of the target has the address before the path.
        path = re.sub(r"^https?://[^/?#]*", "", target).partition("?")[0]
        page = self._pages.get(path)
        is_head = method == "HEAD"
        if page is None or method not in _METHODS:
            status = HTTPStatus.NOT_FOUND if page is None else HTTPStatus.METHOD_NOT_ALLOWED
            names = " or ".join(f"GET {name}" for name in self._pages)
            return replace(Reply.of_data({"error": f"ask {names}"}, status), is_head=is_head)
        try:
            return replace(page(), is_head=is_head)
        except Exception as error:
            logger.warning("GET %s: %s", path, error, exc_info=not isinstance(error, ConsumerError))
            return Reply.of_data({"error": cut(str(error))}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _end(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._reserve < 0:
            self._reserve = _reserve()


def health_pages(state: Callable[[], dict[str, Any]], counts: Path) -> Mapping[str, Callable[[], Reply]]:
    """Return the pages ``/live`` and ``/ready``, which have status 503 if the worker isn't, and ``/metrics``.

    Args:
        state: returns what the first two show as JSON. Its keys ``live`` and ``ready`` decide on the status.
        counts: the folder with the counters of the worker's processes.
    """

    def answer(key: str) -> Reply:
        shown = state()
        return Reply.of_data(shown, HTTPStatus.OK if shown[key] else HTTPStatus.SERVICE_UNAVAILABLE)

    return {
        "/live": lambda: answer("live"),
        "/ready": lambda: answer("ready"),
        "/metrics": lambda: Reply(metrics.text(counts), content_type=metrics.CONTENT_TYPE),
    }


def _reserve() -> int:
    """Open a file; return -1 if none can be opened."""
    with contextlib.suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY)
    return -1
