"""Does the worker live, and may it be counted on? Answers to the probes of Kubernetes, by HTTP."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis_consumer.errors import SettingsError

#: Bytes of a request that are looked at: its first line.
REQUEST_BYTES = 4096
MAX_CONNECTIONS = 32
#: Seconds in which a request must come.
REQUEST_S = 5.0


@dataclass(eq=False)
class Connection:
    """Somebody who asks."""

    socket: socket.socket
    since: float


class Health:
    """A small HTTP server within the supervisor's loop: it answers as long as that loop turns, so it can't lie.

    ``GET /live`` is 200 whenever it is answered; ``GET /ready`` is 200 while the worker takes jobs, else 503. Both
    give the state as JSON.

    Args:
        address: ``host:port`` to listen at; port 0 for a free one.
        state: gives what is shown; its key ``ready`` decides.
        selector: of the loop; what is registered there has a function to call as its data.

    Raises:
        SettingsError: the address can't be listened at.
    """

    def __init__(self, address: str, state: Callable[[], dict[str, Any]], selector: selectors.BaseSelector) -> None:
        host, _, port = address.rpartition(":")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=MAX_CONNECTIONS)
        except OSError as error:
            raise SettingsError(
                f"HEALTH_ADDRESS={address}: can't listen there ({error.strerror or error}); choose a free port of an "
                "address of this machine, e.g. 0.0.0.0:8080"
            ) from error
        self._listener.setblocking(False)
        self._state = state
        self._selector = selector
        self._connections: list[Connection] = []
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

    def leave(self) -> None:
        """Close what a forked process has of it."""
        for connection in self._connections:
            connection.socket.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            accepted, _ = self._listener.accept()
            self._make_room()
            accepted.setblocking(False)
            connection = Connection(accepted, time.monotonic())
            self._connections.append(connection)
            self._selector.register(accepted, selectors.EVENT_READ, lambda: self._answer(connection))

    def _make_room(self) -> None:
        """Hang up on those who ask nothing, and on the oldest where there are too many."""
        now = time.monotonic()
        for connection in list(self._connections):
            if now - connection.since > REQUEST_S or len(self._connections) >= MAX_CONNECTIONS:
                self._end(connection)

    def _answer(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        with contextlib.suppress(OSError):
            first_line = connection.socket.recv(REQUEST_BYTES).split(b"\r\n", 1)[0]
            connection.socket.send(self._reply(first_line.decode("latin-1").split(" ")))
        self._end(connection)

    def _reply(self, request: list[str]) -> bytes:
        method, path = (*request, "", "")[:2]
        state = self._state()
        if method != "GET" or path.split("?")[0] not in ("/live", "/ready"):
            return _http("404 Not Found", {"error": "ask GET /live or GET /ready"})
        return _http("200 OK" if state["ready"] or path.startswith("/live") else "503 Service Unavailable", state)

    def _end(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _http(status: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + content
