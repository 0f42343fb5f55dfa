"""Downloads and uploads single objects, and records those of a run. An incomplete object never appears.

Errors of obstore become the package's errors.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_consumer import metrics, wanted
from redis_consumer.errors import (
    ConsumerError,
    InvalidJob,
    ObjectNotFound,
    PermanentError,
    SettingsError,
    StorageUnavailable,
)
from redis_consumer.machine import check_room, local_disk
from redis_consumer.metrics import recording
from redis_consumer.storage.keys import BucketAddress, content_type

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore


CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_RIGHTS = {
    "s3": "s3:GetObject, s3:PutObject and s3:ListBucket",
    "gs": "the role Storage Object Admin",
    "az": "the role Storage Blob Data Contributor",
    "file": "to read and write the folder",
}
_NO_ANSWER = (
    (r"[Cc]onnection refused", "connection refused"),
    (r"dns error|failed to lookup", "its name can't be resolved"),
    (r"[Cc]ertificate|UnknownIssuer", "its certificate isn't trusted"),
    (r"TimedOut|timed out|kind: Timeout", "no answer in time"),
    (r"body error|Interrupted|IncompleteMessage", "the connection broke"),
)
#: Most objects that are listed for one run. Further ones are only counted.
MOST_LISTED = 100
_CHUNK_BYTES = 4 * 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024
# S3 takes 10000 parts an object.
_MOST_PARTS = 9000
_PARTS_AT_ONCE = 4
#: Where the downloads and uploads of this thread are recorded; None if they aren't.
recorded: ContextVar[Transfers | None] = ContextVar("transfers", default=None)


@dataclass(frozen=True)
class _Rule:
    """If `pattern` is found in the message of the store, raise `error` with `words`.

    Words can contain ``{credentials}`` and ``{rights}``.
    """

    pattern: re.Pattern[str]
    error: type[ConsumerError]
    words: str


def _rule(pattern: str, error: type[ConsumerError], words: str) -> _Rule:
    return _Rule(re.compile(pattern), error, words)


# The first match is used, so special cases come first. `_facts` reads status and code from the message.
_RULES = (
    _rule(
        r"code=(NoSuchBucket|ContainerNotFound|InvalidBucketName)\b|type=FileNotFoundError verb=(upload|list)\b",
        SettingsError,
        "there is no such bucket; create it, or correct STORAGE_BUCKET",
    ),
    _rule(
        r"code=(InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|TokenRefreshRequired"
        r"|AuthenticationFailed|RequestTimeTooSkewed|InvalidSecurity)\b|status=401\b",
        SettingsError,
        "the store refuses the credentials; correct {credentials}, and the clock if it is wrong",
    ),
    _rule(
        r"redirect without LOCATION"
        r"|code=(AuthorizationHeaderMalformed|PermanentRedirect|IllegalLocationConstraint\w*)\b",
        SettingsError,
        "the bucket is in another region; correct AWS_REGION",
    ),
    _rule(
        r"https?://([^/\s]+/(latest/(api/token|meta-data)|computeMetadata|metadata/identity|msi/token)|metadata\.google)",
        StorageUnavailable,
        "no credentials were given, and the machine has none of its own; set {credentials}",
    ),
    _rule(r"type=FileNotFoundError\b", ObjectNotFound, "there is none; upload it, or correct the key in the job"),
    _rule(
        r"status=403\b|type=PermissionDeniedError\b|os error (1|13)\)",
        PermanentError,
        "permission denied, or an absent object that may not be listed; give the credentials {rights}",
    ),
    _rule(
        r"Filenames containing|Could not parse path|Error parsing Path|os error (20|21|22|36|84)\)",
        InvalidJob,
        "the key can't be the name of an object here; rename the file",
    ),
    _rule(
        r"canonicalize filesystem root", SettingsError, "there is no such folder; create it, or correct STORAGE_BUCKET"
    ),
    _rule(r"os error (28|122)\)", StorageUnavailable, "the disk of the bucket is full; free some space"),
    _rule(
        r"os error 30\)", StorageUnavailable, "the disk of the bucket is read-only; mount it so that it can be written"
    ),
    _rule(r"os error (5|23|24|116)\)", StorageUnavailable, "the disk of the bucket fails, or too many files are open"),
    _rule(r"status=(408|409|412|429)\b", StorageUnavailable, "the store is busy; try again later"),
    _rule(r"status=4\d\d\b", PermanentError, "the store refuses the request; see the worker's log for its answer"),
    _rule(r"status=5\d\d\b", StorageUnavailable, "the store has a failure of its own; try again later"),
)


@contextmanager
def as_ours(address: BucketAddress, verb: str, key: str = "") -> Iterator[None]:
    """Convert obstore's errors inside the block to the package's errors, with the cause chained.

    Args:
        address: the bucket.
        verb: the operation, one of ``download``, ``upload``, ``look up``, ``list``, ``sign``.
        key: the key of the object.

    Raises:
        ObjectNotFound: there is no such object.
        StorageUnavailable: the store doesn't respond, or temporarily refuses requests.
        PermanentError: this object may not be read or written.
        SettingsError: bucket, region or credentials are wrong.
        InvalidJob: the key is not a valid name of an object.
    """
    try:
        yield
    except Exception as error:
        ours = _translate(error, address, verb, key)
        if ours is None:
            raise
        raise ours from error


def refuses_access_rules(error: BaseException) -> bool:
    """Return whether GCS refused an upload because of its access rule, since only the bucket decides who can read."""
    text = str(error.__cause__ or error).lower()
    return "uniform bucket-level access" in text or "public access prevention" in text


def _translate(error: Exception, address: BucketAddress, verb: str, key: str) -> ConsumerError | None:
    from obstore.exceptions import BaseError

    if isinstance(error, ConsumerError) or not isinstance(error, (BaseError, OSError, ValueError, NotImplementedError)):
        return None
    what = f"object {key} in {address.label}" if key else f"bucket {address.url}"
    facts = _facts(error, address, verb, key)
    rule = next((rule for rule in _RULES if rule.pattern.search(facts)), None)
    if rule is None:
        return StorageUnavailable(
            f"{what}: {verb} failed, {_no_answer(str(error))}; try again later, and check that the store is up",
            key=key or None,
        )
    words = rule.words.format(
        credentials=CREDENTIALS.get(address.scheme, "the credentials"), rights=_RIGHTS.get(address.scheme, "access")
    )
    return rule.error(f"{what}: {verb} failed, {words}", key=key or None)


def _facts(error: Exception, address: BucketAddress, verb: str, key: str) -> str:
    """Return the text for the rules: kind, verb, status and code, and then the message without the user's key.

    The key is removed, because its text could otherwise match a rule.
    """
    text = str(error).partition("\n\nDebug source:")[0]
    for shown in (address.full_key(key), key) if key else ():
        for before in ("location ", "path ", "/"):
            text = text.replace(before + shown, before)
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    return (
        f"type={type(error).__name__} verb={verb} status={status[1] if status else '-'} "
        f"code={code[1] if code else '-'} {text.partition('<')[0]}"
    )


def _no_answer(text: str) -> str:
    return next((words for pattern, words in _NO_ANSWER if re.search(pattern, text)), "no usable answer")


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
        check_inside(address, key)
    with as_ours(address, "download", key):
        incoming = Incoming(store, address, key, wanted.wait_for(lambda: obstore.get(store, key)))
    if max_bytes is not None and incoming.size > max_bytes:
        raise InvalidJob(
            f"object {key} in {address.label}: {incoming.size} bytes are more than the {max_bytes} allowed; "
            "crop or split the image, or raise the limit",
            key=key,
        )
    return incoming


def check_inside(address: BucketAddress, key: str) -> None:
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
