"""Makes links to results that cannot be guessed, and serves what they lead to.

A link is ``/results/<token>/<name>``. The token holds the key of the object and the time at which the link expires,
signed with the secret of the server, so nothing is kept for a link.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import mimetypes
import os
import secrets
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from redis_consumer.storage import Storage
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem

#: Links to one object are the same for this part of their time, so that a browser can keep what it got.
_STEADY = 8
_SIGNATURE_BYTES, _TIME_BYTES = 18, 6
_PIECE_BYTES = 4 << 20


def address_of(connection: HTTPConnection) -> str:
    """Return the address of this server as its client sees it: PUBLIC_URL, or the host of the request."""
    given = context_of(connection).options.public_url
    return given or f"{connection.url.scheme}://{connection.headers.get('host') or connection.url.netloc}"


def object_link(connection: HTTPConnection, key: str, name: str) -> tuple[str, str]:
    """Return a link to an object, and the time at which it expires.

    Args:
        connection: the request that asks for it.
        key: of the object.
        name: under which it is saved; the link ends with it.
    """
    context = context_of(connection)
    step = max(int(context.options.link_s) // _STEADY, 1)
    expires = (int(time.time()) // step + 1) * step + int(context.options.link_s)
    payload = expires.to_bytes(_TIME_BYTES, "big") + key.encode("utf-8", "surrogateescape")
    token = base64.urlsafe_b64encode(_signature(context, payload) + payload).decode().rstrip("=")
    moment = datetime.fromtimestamp(expires, timezone.utc).isoformat().replace("+00:00", "Z")
    return f"{address_of(connection)}/results/{token}/{quote(name, safe='')}", moment


async def serve_object(request: Request) -> Response:
    """Answer a request for a link.

    Raises:
        Problem: 404: the link is not one of this server; 410: it has expired, or the object was removed.
    """
    context = context_of(request)
    key = _read_token(context, request.path_params["token"])
    return await run_in_threadpool(object_reply, request, context.storage, key, request.path_params["name"])


def object_reply(request: Request, storage: Storage, key: str, name: str) -> Response:
    """Return an object as a file to save. Parts can be requested.

    Raises:
        Problem: 410: there is no such object.
    """
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "private, max-age=86400",
    }
    path = storage.local_object(key)
    if path is not None and path.is_file():
        return FileResponse(path, headers=headers, media_type=kind)
    size = None if path is not None else storage.size(key)
    if size is None:
        raise _gone("The result was removed.")
    headers = {
        **headers,
        "Accept-Ranges": "bytes",
        "ETag": f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"',
    }
    begin, end = _part(request, size)
    status = 200
    if (begin, end) != (0, size):
        status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - begin)
    return StreamingResponse(_pieces(storage, key, begin, end), status, headers, media_type=kind)


def _pieces(storage: Storage, key: str, begin: int, end: int) -> Iterator[bytes]:
    for start in range(begin, end, _PIECE_BYTES):
        yield storage.read_range(key, start, min(start + _PIECE_BYTES, end))


def _part(request: Request, size: int) -> tuple[int, int]:
    """Return the first byte that is asked for and the one after the last. Several parts are answered by the whole."""
    unit, _, text = request.headers.get("range", "").partition("=")
    first, dash, last = text.partition("-")
    if unit.strip().lower() != "bytes" or not dash or not all(part in ("", *_digits(part)) for part in (first, last)):
        return 0, size
    if not first:
        begin, end = size - min(int(last or 0), size), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
    if begin >= end:
        raise Problem(416, f"The file has {size} bytes.", title="No such part", field="Range")
    return begin, end


def _digits(text: str) -> list[str]:
    return [text] if text.isascii() and text.isdigit() and len(text) < 16 else []


def _read_token(context: WebContext, token: str) -> str:
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    signature, payload = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
    if len(payload) <= _TIME_BYTES or not hmac.compare_digest(signature, _signature(context, payload)):
        raise Problem(404, "This is no link of this server.", hint="Copy the whole link, or open the job again.")
    if int.from_bytes(payload[:_TIME_BYTES], "big") < time.time():
        raise _gone("The link has expired.")
    return payload[_TIME_BYTES:].decode("utf-8", "surrogateescape")


def _gone(detail: str) -> Problem:
    return Problem(410, detail, title="The result is no longer here", hint="Open the job again, or run it again.")


def _signature(context: WebContext, payload: bytes) -> bytes:
    return hmac.digest(secret_of(context), payload, "sha256")[:_SIGNATURE_BYTES]


def secret_of(context: WebContext) -> bytes:
    """Return the server's secret: WEB_SECRET, or one that is made once and kept in the folder."""
    found = context.cache.get("secret")
    if not isinstance(found, bytes):
        given = context.options.secret
        found = given.encode() if given else _kept_secret(context.folder / "secret")
        context.cache["secret"] = found
    return found


def _kept_secret(path: Path) -> bytes:
    if not path.exists():
        part = path.with_name(f".secret.{secrets.token_hex(8)}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(part, path)  # the first of several servers takes precedence
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path.read_bytes()
