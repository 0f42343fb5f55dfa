"""Downloads and uploads single objects, and records those of a run. An incomplete object never appears."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_consumer import metrics, wanted
from redis_consumer.errors import InvalidJob, StorageUnavailable
from redis_consumer.metrics import recording
from redis_consumer.storage.faults import as_ours, check_room, local_disk
from redis_consumer.storage.keys import content_type
from redis_consumer.storage.links import BucketAddress

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

#: Most objects that are listed for one run. Further ones are only counted.
MOST_LISTED = 100

_CHUNK_BYTES = 4 * 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024

# S3 takes 10000 parts an object.
_MOST_PARTS = 9000
_PARTS_AT_ONCE = 4


@dataclass(frozen=True)
class Moved:
    """An object that was downloaded or uploaded.

    Attributes:
        key: its key; that of a folder ends with a slash.
        size: bytes, of all objects together for a folder.
        sha256: digest of the bytes, or for a folder of the lines ``<sha256>  <key>`` of its objects, sorted.
    """

    key: str
    size: int
    sha256: str


@dataclass(slots=True)
class Transfers:
    """The objects that one run has transferred, in order. Only the run's own thread is recorded.

    Attributes:
        downloads: the first `MOST_LISTED` of them.
        uploads: the same.
        left_out: number of further objects.
        not_wanted: keys of objects that aren't recorded.
    """

    downloads: list[Moved] = field(default_factory=list)
    uploads: list[Moved] = field(default_factory=list)
    left_out: int = 0
    not_wanted: set[str] = field(default_factory=set)

    def add(self, moved: Moved, *, is_upload: bool = False) -> None:
        """Take an object."""
        listed = self.uploads if is_upload else self.downloads
        if len(listed) < MOST_LISTED:
            listed.append(moved)
        else:
            self.left_out += 1


#: Where the downloads and uploads of this thread are recorded; None if they aren't.
recorded: ContextVar[Transfers | None] = ContextVar("transfers", default=None)


def new_digest(key: str) -> Any:
    """Return a digest for an object that is recorded; None for any other."""
    transfers = recorded.get()
    return None if transfers is None or key in transfers.not_wanted else hashlib.sha256()


def folder_of(key: str, parts: Sequence[Moved]) -> Moved:
    """Combine all objects of a folder into one entry."""
    lines = sorted(f"{part.sha256}  {part.key}\n" for part in parts)
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape"))
    return Moved(f"{key}/", sum(part.size for part in parts), digest.hexdigest())


@dataclass(frozen=True)
class Incoming:
    """An object whose size is known and allowed, and whose content isn't read yet."""

    store: ObjectStore
    address: BucketAddress
    key: str
    result: GetResult

    @property
    def size(self) -> int:
        """The size of the object in bytes."""
        return self.result.meta["size"]

    def read(self) -> bytes:
        """The whole object."""
        with as_ours(self.address, "download", self.key):
            content = wanted.wait_for(lambda: self.result.bytes().to_bytes())
        _count_bytes("download", len(content))
        return content

    def save(self, path: str, digest: Any = None) -> None:
        """Stream the object to a file that appears only when it is complete.

        Args:
            path: of the file.
            digest: a digest of `hashlib` that is updated with all bytes; None for none.

        The store's ETag isn't compared: it is the MD5 of the bytes only for some uploads.
        The size shows whether bytes are missing. TLS detects wrong bytes.
        """
        check_room(path, self.size, f"object {self.key} in {self.address.label}")
        part = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.part"
        try:
            with local_disk(path), open(part, "xb") as file:
                size = 0
                for chunk in self._chunks():
                    size += file.write(chunk)
                    if digest is not None:
                        digest.update(chunk)
            if size != self.size:
                raise StorageUnavailable(
                    f"object {self.key} in {self.address.label}: {size} of {self.size} bytes came; try again later",
                    key=self.key,
                )
            with local_disk(path):
                os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)

    def _chunks(self) -> Iterator[bytes]:
        stream = self._ranges() if self.address.scheme == "file" else iter(self.result.stream(_CHUNK_BYTES))
        while True:
            with as_ours(self.address, "download", self.key):
                chunk = wanted.wait_for(lambda: next(stream, None))
            if chunk is None:
                return
            _count_bytes("download", len(chunk))
            wanted.check()
            yield chunk

    def _ranges(self) -> Iterator[bytes]:
        """Yield the object in pieces, because obstore's stream of a local file that shrinks never ends."""
        import obstore

        for begin in range(0, self.size, _CHUNK_BYTES):
            end = min(begin + _CHUNK_BYTES, self.size)
            yield obstore.get_range(self.store, self.key, start=begin, end=end).to_bytes()


def start(store: ObjectStore, address: BucketAddress, key: str, max_bytes: int | None) -> Incoming:
    """Request an object. Its size is checked before the body is read.

    Raises:
        InvalidJob: the object is larger than `max_bytes`, or outside of the folder by a symbolic link.
        ObjectNotFound: there is none.
    """
    import obstore

    if address.scheme == "file":
        _check_inside(address, key)
    with as_ours(address, "download", key):
        incoming = Incoming(store, address, key, wanted.wait_for(lambda: obstore.get(store, key)))
    if max_bytes is not None and incoming.size > max_bytes:
        raise InvalidJob(
            f"object {key} in {address.label}: {incoming.size} bytes are more than the {max_bytes} allowed; "
            "crop or split the image, or raise the limit",
            key=key,
        )
    return incoming


def _check_inside(address: BucketAddress, key: str) -> None:
    """Refuse a symbolic link that leads out of the folder. Otherwise, users could read every file of the worker."""
    root = os.path.realpath(address.bucket)
    if not Path(os.path.realpath(os.path.join(root, key))).is_relative_to(root):
        raise InvalidJob(
            f"object {key} in {address.label}: is a link to outside of the bucket; put the file itself there", key=key
        )


def from_disk(store: ObjectStore, address: BucketAddress, key: str, path: str) -> None:
    """Stream a file to the bucket, in parts if it is large. The object appears only when it is complete.

    Raises:
        FileNotFoundError: there is no such local file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "can't be uploaded, there is no such local file", path)
    put(store, address, key, Path(path), max(_PART_BYTES, os.path.getsize(path) // _MOST_PARTS))


def put(
    store: ObjectStore, address: BucketAddress, key: str, source: Path | bytes, part_bytes: int = _PART_BYTES
) -> None:
    """Write an object. Its media type is given by the suffix of its key."""
    import obstore

    # A folder on disk has no place for a media type.
    attributes = None if address.scheme == "file" else {"Content-Type": content_type(key)}
    with as_ours(address, "upload", key):
        obstore.put(store, key, source, attributes=attributes, chunk_size=part_bytes, max_concurrency=_PARTS_AT_ONCE)
    _count_bytes("upload", len(source) if isinstance(source, bytes) else source.stat().st_size)


def _count_bytes(direction: str, count: int) -> None:
    if recording.counts_as:
        metrics.BYTES.add(direction, amount=count)
