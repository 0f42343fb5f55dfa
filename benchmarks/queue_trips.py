"""Counts how often a worker waits for Redis, with a relay between the two."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Counter:
    """Forwards connections to a port of this machine, and counts what is sent after a reply, or first.

    Commands that are sent together are one trip.

    Attributes:
        port: to connect to.
        trips: counted so far, over all connections.
        marked: those of them that hold the mark.

    Args:
        target: port to forward to.
        mark: text that identifies the trips that are counted separately, such as the digest of a script.
    """

    def __init__(self, target: int, mark: str = "") -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.trips = self.marked = 0
        self._mark = mark.encode()
        self._waiting: set[int] = set()
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Forward until `close` is called."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=[near], daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are there end with the worker's."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            connection = near.fileno()
            replies = threading.Thread(target=self._pump, args=[far, near, connection, True], daemon=True)
            replies.start()
            self._pump(near, far, connection, False)
            replies.join()

    def _pump(self, source: socket.socket, sink: socket.socket, connection: int, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._note(connection, is_reply, is_marked=bool(self._mark) and self._mark in data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def _note(self, connection: int, is_reply: bool, *, is_marked: bool) -> None:
        with self._lock:
            if is_reply:
                self._waiting.discard(connection)
            elif connection not in self._waiting:
                self._waiting.add(connection)
                self.trips += 1
                self.marked += is_marked


@contextmanager
def counted(target: int, *, mark: str = "") -> Iterator[Counter]:
    """Run a counter until the block ends."""
    counter = Counter(target, mark)
    thread = threading.Thread(target=counter.serve, daemon=True)
    thread.start()
    try:
        yield counter
    finally:
        counter.close()
        thread.join()
