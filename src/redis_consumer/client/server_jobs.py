"""Sends images to a web server by its API v1, and fetches the results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from redis_consumer.errors import ConsumerError, PermanentError, RetryableError, SettingsError

_PIECE_BYTES = 8 << 20
_TUS = {"Tus-Resumable": "1.0.0"}
#: Seconds of an outage after which a request is given up, and between two tries and two looks.
OUTAGE_S, PAUSE_S = 60.0, 0.3
_TIMEOUT_S = 60.0
_OVER = frozenset({"done", "failed", "cancelled", "expired"})


class ServerJobs:
    """Jobs of a web server.

    Args:
        url: of the server, such as ``http://127.0.0.1:8080``.
        token: of the user; empty for none.

    Raises:
        SettingsError: the address is wrong.
        RetryableError: (methods) the server can't be reached for a minute.
        PermanentError: (methods) the server refuses the request; the text says what to do.
    """

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"server {url}: is no address of a web server; give e.g. http://127.0.0.1:8080")
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._base = parts.netloc.rpartition("@")[2], f"{parts.path.rstrip('/')}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, path: Path, given: Mapping[str, Any]) -> str:
        """Upload a file and create a job for it; return the id of the job."""
        upload = self._upload(path)
        end = time.monotonic() + OUTAGE_S
        while True:
            try:
                return str(self._json("POST", "/jobs", {**given, "upload": upload})["id"])
            except _RefusedError as error:
                if error.status != 409 or time.monotonic() > end:  # it is still on its way into the bucket
                    raise
                time.sleep(PAUSE_S)

    def wait(self, job_id: str, tell: Callable[[str, float], None], timeout_s: float) -> dict[str, str]:
        """Wait until a job has ended; return what it says. `tell` gets its stage and percent."""
        end = time.monotonic() + timeout_s if timeout_s > 0 else float("inf")
        while True:
            job = self._json("GET", f"/jobs/{quote(job_id, safe='')}")
            tell(job["stage"] or job["status"], float(job["progress"]))
            if job["status"] in _OVER:
                break
            if time.monotonic() > end:
                raise RetryableError(f"job {job_id}: has not ended within {timeout_s:g} s; it continues", job_id=job_id)
            time.sleep(PAUSE_S)
        if job["status"] != "done":
            problem = job["problem"] or {"detail": f"the job is {job['status']}", "hint": ""}
            raise PermanentError("; ".join(filter(None, (problem["detail"], problem["hint"]))), job_id=job_id)
        fields = {name: str(text) for name, text in job["read"].items()}
        known = {name: "" if job[name] is None else str(job[name]) for name in ("objects", "quality", "warning")}
        return {**fields, **known}

    def fetch(self, job_id: str, path: Path) -> None:
        """Download the result zip of a job."""
        with self._request("GET", f"/jobs/{quote(job_id, safe='')}/files/result.zip") as reply, path.open("wb") as file:
            while chunk := reply.read(1 << 20):
                file.write(chunk)

    def _upload(self, path: Path) -> str:
        size = path.stat().st_size
        upload = str(self._json("POST", "/uploads", {"name": path.name, "size": size})["id"])
        offset, end = 0, time.monotonic() + OUTAGE_S
        with path.open("rb") as file:
            while offset < size:
                file.seek(offset)
                headers = {**_TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
                try:
                    with self._once("PATCH", f"/uploads/{upload}", file.read(_PIECE_BYTES), headers) as reply:
                        offset = int(reply.headers["Upload-Offset"])
                    end = time.monotonic() + OUTAGE_S
                except (RetryableError, _RefusedError) as error:
                    is_passing = isinstance(error, RetryableError) or error.status in (409, 423)
                    if not is_passing or time.monotonic() > end:
                        raise
                    time.sleep(PAUSE_S)
                    with self._request("HEAD", f"/uploads/{upload}", headers=_TUS) as reply:
                        offset = int(reply.headers["Upload-Offset"])
        return upload

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with self._request(method, path, data, {"Content-Type": "application/json"}) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HTTPResponse:
        """Send a request, again while the server can't be reached."""
        end = time.monotonic() + OUTAGE_S
        while True:
            try:
                return self._once(method, path, body, headers)
            except RetryableError:
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE_S)

    def _once(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HTTPResponse:
        connection = self._kind(self._host, timeout=_TIMEOUT_S)
        try:
            given = {**self._headers, **(headers or {}), "Connection": "close"}
            connection.request(method, self._base + path, body, given)
            reply = connection.getresponse()
        except (OSError, HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise RetryableError(f"server {self._host}: can't be reached ({reason}); check that it runs") from error
        if reply.status < 400:
            return reply
        with reply:
            raise _refused(reply.status, reply.read(1 << 16))


class _RefusedError(PermanentError):
    """The server refuses a request."""

    status = 0


def _refused(status: int, body: bytes) -> ConsumerError:
    try:
        problem = json.loads(body)
        text = "; ".join(filter(None, (problem["detail"], problem["hint"])))
        field = f"field {problem['field']}: " if problem["field"] else ""
    except (ValueError, KeyError, TypeError):
        field, text = "", f"the server answers {status}"
    if status in (429, 502, 503, 504):
        return RetryableError(field + text)
    error = _RefusedError(field + text)
    error.status = status
    return error
