"""The kiosk's web server over HTTP, as far as its client asks it (contract, section 2)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any

from redis_consumer.storage import Storage
from support.neighbours import Frontend


class _Handler(BaseHTTPRequestHandler):
    frontend: Frontend
    storage: Storage
    bodies: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._reply({"message": "OK"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/upload":
            self._reply(self._upload(body))
            return
        asked = json.loads(body)
        if self.path == "/api/predict":
            self.bodies.append(asked)
            self._reply({"hash": self.frontend.predict(asked)})
        elif self.path == "/api/status":
            self._reply({"status": self.frontend.read(asked["hash"], "status")["status"]})
        elif self.path == "/api/redis":
            fields = asked["key"] if isinstance(asked["key"], list) else [asked["key"]]
            values = list(self.frontend.read(asked["hash"], *fields).values())
            self._reply({"value": values if isinstance(asked["key"], list) else values[0]})
        elif self.path == "/api/redis/expire":
            self._reply({"value": self.frontend.expire(asked["hash"], int(asked["expireIn"]))})
        else:
            self.send_error(404)

    def _upload(self, body: bytes) -> dict[str, str]:
        """On S3, both are the object's whole URL."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + body).get_payload()
        (part,) = parts
        name = PurePosixPath(part.get_filename()).name
        self.storage.write_bytes(f"uploads/{name}", part.get_payload(decode=True))
        url = self.storage.get_public_url(f"uploads/{name}")
        return {"imageURL": url, "uploadedName": url}

    def _reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving_frontend(frontend: Frontend, storage: Storage) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve until the block ends; gives the address and the bodies of all jobs that were submitted.

    Args:
        frontend: writes the jobs.
        storage: where uploads go.
    """
    bodies: list[dict[str, Any]] = []
    handler = type("Handler", (_Handler,), {"frontend": frontend, "storage": storage, "bodies": bodies})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
