"""Takes uploads: keeps half-sent ones on disk, checks the space for them, and moves complete ones into the bucket."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from redis_consumer.errors import ConsumerError
from redis_consumer.text import in_utf8
from redis_consumer.web.access import User, may_see
from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import Problem
from redis_consumer.web.view.cache import ViewCache, ViewSource, ViewState
from redis_consumer.web.view.decoders import warm_up

#: Seconds after the last piece in which a half-sent upload can be continued.
HALF_SENT_S = 24 * 3600
#: Seconds for which a complete upload can be named in jobs. Its object stays in the bucket.
KEPT_S = 30 * 24 * 3600
#: Seconds to which the limit of bytes of a user applies.
DAY_S = 24 * 3600
#: Largest object that a store takes in one request, and seconds for which a link for that works.
_MOST_DIRECT_BYTES, _LINK_S = 5 << 30, 6 * 3600.0
#: Bytes of the disk that uploads always leave free.
_FREE_BYTES = 256 << 20
#: Bytes that are written at once, and between two checks of the space for an upload of unknown size.
_WRITE_BYTES, _CHECK_BYTES = 1 << 20, 64 << 20
_MAX_PART_BYTES, _MOST_PARTS = 200, 8
#: Endings of keys by which workers know the kind of a file; some have two parts.
_SUFFIX = re.compile(r"(\.(?:tar|zarr|ome))?\.[a-z0-9]{1,8}$")
#: Seconds after which a move into an unavailable bucket is tried again.
_RETRY_S = 10.0
_FALLBACK = "image"


@dataclass(frozen=True)
class Upload:
    """An upload.

    Attributes:
        id: unguessable.
        name: the user's name for the file, with its folders.
        size: bytes.
        owner: name of the user.
        key: of the object in the bucket; empty until the upload is complete.
        target: the key that it gets.
        is_direct: whether the client sends it to the bucket itself.
    """

    id: str
    name: str
    size: int
    owner: str
    key: str
    target: str
    is_direct: bool

    @classmethod
    def of(cls, upload_id: str, fields: Mapping[str, str]) -> Upload:
        """Read the hash of an upload."""
        texts = {name: fields.get(name, "") for name in ("name", "owner", "key")}
        target = fields.get("target") or texts["key"]
        size, is_direct = int(fields.get("size") or 0), fields.get("direct") == "1"
        return cls(upload_id, size=size, target=target, is_direct=is_direct, **texts)


def hash_key(upload_id: str) -> str:
    """Return the key of the hash of an upload in Redis."""
    return f"redis-consumer:upload:{upload_id}"


def clean_name(name: str) -> str:
    r"""Return a file's name with its folders, without parts that lead out of them and without control characters.

    >>> clean_name("..\\plate 1/../a\x00b.tif")
    'plate 1/ab.tif'
    """
    parts = [_clean_part(part) for part in re.split(r"[\\/]+", in_utf8(name))]
    kept = [part for part in parts if part.strip(" .")]
    return "/".join(kept[-_MOST_PARTS:]) or _FALLBACK


def _clean_part(part: str) -> str:
    text = "".join(each for each in part if each.isprintable()).strip()
    if len(text.encode()) <= _MAX_PART_BYTES:
        return text
    stem, dot, suffix = text.rpartition(".")
    suffix = f"{dot}{suffix}" if stem and len(suffix) < 10 else ""
    return text.encode()[: _MAX_PART_BYTES - len(suffix)].decode("utf-8", "ignore") + suffix


class Uploads:
    """All uploads of a server.

    Half-sent ones are files ``<id>.<size>`` in a folder, which outlive the server. What else is known of an upload is a
    hash in Redis.

    Args:
        context: what all routes share.
        views: where views of uploaded images are made.

    Raises:
        Problem: (methods) the request is refused; the text says what to do.
        ConsumerError: (methods) Redis or the bucket is unavailable.
    """

    def __init__(self, context: WebContext, views: ViewCache) -> None:
        self._context = context
        self._views = views
        self._folder = context.folder / "uploads"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._failed: dict[str, tuple[ConsumerError | None, float]] = {}

    @property
    def most_bytes(self) -> int:
        """Largest size of an upload: the server's, or that of a download of workers; 0 for any."""
        limits = (self._context.options.upload_bytes, self._context.settings.max_download_bytes or 0)
        return min((limit for limit in limits if limit), default=0)

    def create(self, user: User, name: str, size: int, *, may_be_direct: bool = False) -> Upload:
        """Begin an upload.

        Args:
            user: its owner.
            name: the user's name for the file.
            size: bytes.
            may_be_direct: whether the client can send it to the bucket itself.
        """
        self._check_size(size)
        upload_id = secrets.token_urlsafe(18)
        name = clean_name(name)
        suffix = _SUFFIX.search(name.lower())
        target = f"{self._context.options.upload_prefix}/{secrets.token_hex(16)}{suffix[0] if suffix else ''}"
        upload = Upload(upload_id, name, size, user.name, "", target, is_direct=False)
        is_direct = may_be_direct and bool(self._link(upload))
        self.sweep()
        with self._lock:
            if not is_direct:
                self._check_space(size)
            self._check_user(user, upload_id, size)
            if not is_direct:
                (self._folder / f"{upload_id}.{size}").touch(exist_ok=False)
        fields = {"name": name, "size": size, "owner": user.name, "key": "", "target": target}
        created = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        warm_up()  # its image is read soon
        self._write(upload, {**fields, "direct": int(is_direct), "created_at": created}, HALF_SENT_S)
        return replace(upload, is_direct=is_direct)

    def find(self, user: User, upload_id: str) -> Upload:
        """Return an upload that the user may see."""
        fields = self._context.client.hgetall(hash_key(upload_id)) if upload_id else {}
        if not fields or not may_see(user, fields):
            raise Problem(404, "There is no such upload, or it has expired.", hint="Upload the file again.")
        return Upload.of(upload_id, fields)

    def offset_of(self, upload: Upload) -> int:
        """Return the number of bytes that the server has."""
        if upload.key:
            return upload.size
        if upload.is_direct:
            return upload.size if self._context.storage.size(upload.target) == upload.size else 0
        try:
            return self._path(upload).stat().st_size
        except FileNotFoundError:
            raise Problem(404, "The upload has expired.", hint="Upload the file again.") from None

    async def append(self, upload: Upload, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Append bytes that a client sends; what has come is kept when it stops. Return the new offset.

        Args:
            upload: not complete.
            offset: where the bytes belong.
            pieces: the bytes.
        """
        if upload.id in self._taken:
            raise Problem(
                423, "Another request is sending this upload.", hint="Ask for its offset, and continue there."
            )
        self._taken.add(upload.id)
        try:
            have = await run_in_threadpool(self.offset_of, upload)
            if offset != have:
                raise Problem(
                    409, f"The server has {have} bytes, the request begins at {offset}.", field="Upload-Offset",
                    hint="Ask for the offset by HEAD, and continue there.",
                )  # fmt: skip
            await _write_pieces(self._path(upload), pieces, upload.size - have)
        finally:
            self._taken.discard(upload.id)
        have = await run_in_threadpool(self.offset_of, upload)
        if have < upload.size:
            await run_in_threadpool(self._context.client.expire, hash_key(upload.id), HALF_SENT_S)
        return have

    async def receive(self, user: User, name: str, size: int | None, pieces: AsyncIterator[bytes]) -> Upload:
        """Take a file in one request. Nothing is kept unless all of it has come.

        Args:
            user: its owner.
            name: the user's name for the file.
            size: bytes; None if the client doesn't say.
            pieces: the bytes.
        """
        upload = await run_in_threadpool(self.create, user, name, size or 0)
        try:
            most = self.most_bytes or sys.maxsize
            come = await _write_pieces(self._path(upload), pieces, most if size is None else size, self._check_space)
            if size is not None and come < size:
                raise Problem(400, f"{come} of {size} bytes came.", hint="Send the file again, or use tus to continue.")
            if size is None:
                sized = replace(upload, size=come)
                os.replace(self._path(upload), self._path(sized))
                upload = sized
                await run_in_threadpool(self._write, upload, {"size": come}, HALF_SENT_S)
                await run_in_threadpool(self._check_user, user, upload.id, come)
            return await run_in_threadpool(self._finish, upload)
        except BaseException:
            await run_in_threadpool(self.remove, upload)
            raise

    def advance(self, upload: Upload) -> Upload:
        """Move an upload that is complete into the bucket, and start its view. Return it with its key once it is there.

        Moving to another machine continues after this call; `failure_of` has the reason why it failed last.
        """
        if upload.key or self.offset_of(upload) < upload.size:
            return upload
        if upload.is_direct or self._context.storage.local_object(upload.target) is not None:
            return self._finish(upload)
        error, at = self._failed.get(upload.id, (None, 0.0))
        if error is None or at + _RETRY_S < time.monotonic():
            threading.Thread(target=self._finish_later, args=(upload,), name="upload", daemon=True).start()
        return upload

    def failure_of(self, upload: Upload) -> ConsumerError | None:
        """Return why a complete upload could not be moved into the bucket; None if nothing is wrong."""
        return None if upload.key else self._failed.get(upload.id, (None, 0.0))[0]

    def _finish_later(self, upload: Upload) -> None:
        try:
            self._finish(upload)
            self._failed.pop(upload.id, None)
        except ConsumerError as error:
            self._failed[upload.id] = (error, time.monotonic())

    def _finish(self, upload: Upload) -> Upload:
        """Move an upload into the bucket; only one thread does."""
        with self._lock:
            if upload.id in self._taken:
                return upload
            self._taken.add(upload.id)
        try:
            path, storage = self._path(upload), self._context.storage
            done = replace(upload, key=upload.target)
            if upload.is_direct or not path.exists():
                pass  # it is there: by the client, or before the server was restarted
            elif storage.local_object(upload.target) is not None:
                storage.take_file(path, upload.target)
            else:
                self._views.look(source_of(done), path)  # read here, so that it needn't be downloaded
                storage.upload_file(path, upload.target)
                view = self._views.state_of(source_of(done))
                if view.done is None:
                    path.unlink(missing_ok=True)
                else:
                    view.done.add_done_callback(lambda _: path.unlink(missing_ok=True))
            self._write(done, {"key": upload.target}, KEPT_S)
            return done
        finally:
            self._taken.discard(upload.id)

    def look(self, upload: Upload) -> ViewState:
        """Return what there is of the view of a complete upload."""
        return self._views.look(source_of(upload))

    def remove(self, upload: Upload) -> None:
        """Forget an upload. The object of a complete one stays, since jobs can have it."""
        self._path(upload).unlink(missing_ok=True)
        if upload.is_direct and not upload.key:
            self._context.storage.delete(upload.target)
        self._context.client.delete(hash_key(upload.id))
        self._context.client.hdel(_bytes_key(upload.owner), upload.id)

    def direct_link(self, upload: Upload) -> str:
        """Return the link to which a client sends an upload; empty for an upload that comes to this server."""
        return self._link(upload) if upload.is_direct else ""

    def _link(self, upload: Upload) -> str:
        if not 0 < upload.size <= _MOST_DIRECT_BYTES:
            return ""
        return self._context.storage.signed_put(upload.target, _LINK_S) or ""

    def sweep(self) -> None:
        """Remove half-sent uploads that can't be continued any more."""
        oldest = time.time() - HALF_SENT_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, upload: Upload) -> Path:
        return self._folder / f"{upload.id}.{upload.size}"

    def _write(self, upload: Upload, fields: Mapping[str, Any], expire_s: int) -> None:
        key = hash_key(upload.id)
        pairs = [str(text) for pair in fields.items() for text in pair]
        self._context.client.batch(("HSET", key, *pairs), ("EXPIRE", key, expire_s))

    def _check_size(self, size: int) -> None:
        if size < 0:
            raise Problem(422, f"{size} is no size.", field="size")
        if self.most_bytes and size > self.most_bytes:
            raise Problem(
                413, f"The file has {size} bytes, allowed are {self.most_bytes}.", field="size",
                hint="Crop or split it, or ask for a higher limit (WEB_MAX_UPLOAD_BYTES, MAX_DOWNLOAD_BYTES).",
            )  # fmt: skip

    def _check_space(self, size: int) -> None:
        promised = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError, ValueError):
                promised += int(path.name.rpartition(".")[2]) - path.stat().st_size
        left = shutil.disk_usage(self._folder).free - promised - _FREE_BYTES
        if size > left:
            raise Problem(
                507, f"The file has {size} bytes, but the server's disk has room for {max(left, 0)}.", field="size",
                title="No room", hint="Try again later, or ask the operator to free some space.",
            )  # fmt: skip

    def _check_user(self, user: User, upload_id: str, size: int) -> None:
        """Count the bytes that a user has uploaded within a day, and refuse more than allowed."""
        most = self._context.options.user_bytes
        if not most or not user.name:
            return
        key, now = _bytes_key(user.name), int(time.time())
        client = self._context.client
        entries = {name: text.split(",") for name, text in client.hgetall(key).items()}
        old = [name for name, (at, _) in entries.items() if int(at) < now - DAY_S]
        if old:
            client.hdel(key, *old)
        used = sum(int(count) for name, (_, count) in entries.items() if name not in old)
        if used + size > most:
            raise Problem(
                429, f"You have uploaded {used} bytes today; with this file it would be more than the {most} allowed.",
                field="size", hint="Wait until tomorrow, or ask the operator for a higher limit.",
            )  # fmt: skip
        client.batch(("HSET", key, upload_id, f"{now},{size}"), ("EXPIRE", key, DAY_S))


def _bytes_key(owner: str) -> str:
    return f"redis-consumer:uploaded:{owner}"


def source_of(upload: Upload) -> ViewSource:
    """Return what the view of an upload is made of."""
    return ViewSource("make_image", upload.target, upload.name)


async def _write_pieces(
    path: Path, pieces: AsyncIterator[bytes], most: int, check_space: Callable[[int], None] = lambda _: None
) -> int:
    """Append bytes to a file, and return how many. Those that have come count when the client stops.

    Args:
        path: of the file.
        pieces: the bytes.
        most: bytes that may come.
        check_space: called from time to time with 0, raises a `Problem` if the disk is nearly full.

    Raises:
        Problem: more bytes come than may, which aren't kept; or the disk is full.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    held, come, checked = bytearray(), 0, 0
    try:
        async for piece in pieces:
            part = piece[: most - come]
            held += part
            come += len(part)
            if len(held) >= _WRITE_BYTES:
                await run_in_threadpool(_write_all, descriptor, bytes(held))
                held.clear()
            if come - checked >= _CHECK_BYTES:
                checked = come
                await run_in_threadpool(check_space, 0)
            if len(part) < len(piece):
                raise Problem(413, "More bytes were sent than the upload has.", hint="Begin a new upload of this file.")
    except ClientDisconnect:
        pass  # what has come can be continued
    finally:
        try:
            _write_all(descriptor, bytes(held))
        finally:
            os.close(descriptor)
    return come


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        raise Problem(
            507, f"The server's disk can't take the upload ({error.strerror}).", title="No room",
            hint="Try again later, or ask the operator to free some space.",
        ) from error  # fmt: skip
