"""A process that serves S3 and Google Cloud Storage over HTTP on loopback, on one set of buckets.

S3 is moto's server application. The Google client of obstore speaks a dialect so close to S3's that the same
application understands it behind `GcsDoor`. A `FaultDoor` in front of each makes it fail on demand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class GcsDoor:
    """Lets a Google client in.

    Its kind of authorization is replaced by one that moto takes for S3's, and a dash in the name of its bucket, which
    it encodes, is decoded, because moto doesn't.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        scope = "Credential=test/20200101/us-east-1/s3/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=00"
        for name in ("RAW_URI", "REQUEST_URI"):
            bucket, slash, rest = environ[name].removeprefix("/").partition("/")
            environ[name] = "/" + bucket.replace("%2D", "-") + slash + rest
        return self.app(environ, start)


class FaultDoor:
    """Notes what is asked, and answers it with errors for as long as told.

    ``POST /-/faults`` takes ``{"times", "status", "body", "methods", "header", "half"}``: how often, with what,
    for which methods, only where the request has this header, and whether to cut the true answer in half instead.
    ``GET /-/requests`` gives and forgets the requests so far.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.lock = threading.Lock()
        self.fault: dict[str, Any] = {"times": 0}
        self.requests: list[dict[str, str]] = []

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/-/"):
            return self._control(environ, start)
        with self.lock:
            self.requests.append({name: str(text) for name, text in environ.items() if name.isupper()})
            fault = self._next_fault(environ)
        if fault is None:
            return self.app(environ, start)
        if fault.get("half"):
            body = b"".join(self.app(environ, start))
            return [body[: len(body) // 2]]
        body = fault.get("body", "").encode()
        start(f"{fault['status']} Fault", [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
        return [body]

    def _next_fault(self, environ: Environ) -> dict[str, Any] | None:
        fault = self.fault
        is_meant = environ["REQUEST_METHOD"] in fault.get("methods", ["GET", "PUT", "POST", "HEAD"])
        if fault["times"] < 1 or not is_meant or fault.get("header", "PATH_INFO") not in environ:
            return None
        fault["times"] -= 1
        return fault

    def _control(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        with self.lock:
            if environ["REQUEST_METHOD"] == "POST":
                self.fault = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                answer: Any = None
            else:
                answer, self.requests = self.requests, []
        body = json.dumps(answer).encode()
        start("200 OK", [("Content-Length", str(len(body)))])
        return [body]


@dataclass(frozen=True)
class CloudServer:
    """The running process.

    Attributes:
        s3_url: where it speaks S3.
        gcs_url: where it speaks Google Cloud Storage.
    """

    process: subprocess.Popen[str]
    s3_url: str
    gcs_url: str

    @classmethod
    def start(cls) -> CloudServer:
        """Start it on free ports and wait until it listens."""
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the cloud server ended before it listened"
        ports = json.loads(line)
        return cls(process, f"http://127.0.0.1:{ports['s3']}", f"http://127.0.0.1:{ports['gcs']}")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket, seen by both."""
        send(f"{self.s3_url}/{name}", method="PUT")


def send(url: str, data: bytes | None = None, method: str = "GET") -> bytes:
    """Answer of one plain request."""
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as reply:
        return bytes(reply.read())


def set_fault(server_url: str, **fault: Any) -> None:
    """Tell a `FaultDoor` what to do to the next requests; ``times=0`` ends it."""
    send(f"{server_url}/-/faults", json.dumps({"times": 0, "status": 500, **fault}).encode(), "POST")


def requests_so_far(server_url: str) -> list[dict[str, str]]:
    """The CGI variables of each request since the last call."""
    requests: list[dict[str, str]] = json.loads(send(f"{server_url}/-/requests"))
    return requests


def main() -> None:
    """Serve until the process is ended; the first line of stdout tells the ports."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)
    doors = {"s3": FaultDoor(app), "gcs": FaultDoor(GcsDoor(app))}
    servers = {name: make_server("127.0.0.1", 0, door, threaded=True) for name, door in doors.items()}
    threads = [threading.Thread(target=server.serve_forever) for server in servers.values()]
    for thread in threads:
        thread.start()
    sys.stdout.write(json.dumps({name: server.port for name, server in servers.items()}) + "\n")
    sys.stdout.flush()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
