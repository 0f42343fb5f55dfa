"""Converts errors of obstore and of the local disk to the package's errors."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis_consumer.errors import (
    ConsumerError,
    InvalidJob,
    ObjectNotFound,
    OutOfResources,
    PermanentError,
    SettingsError,
    StorageUnavailable,
)
from redis_consumer.machine import NO_ROOM
from redis_consumer.storage.links import BucketAddress

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

# Errors of the disk that a job causes, because its key can't be a file name here.
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


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

_NO_ANSWER = (
    (r"[Cc]onnection refused", "connection refused"),
    (r"dns error|failed to lookup", "its name can't be resolved"),
    (r"[Cc]ertificate|UnknownIssuer", "its certificate isn't trusted"),
    (r"TimedOut|timed out|kind: Timeout", "no answer in time"),
    (r"body error|Interrupted|IncompleteMessage", "the connection broke"),
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


@contextmanager
def local_disk(path: str | os.PathLike[str], *, is_ours: bool = False) -> Iterator[None]:
    """Convert errors of the local disk inside the block to the package's errors, with the cause chained.

    Args:
        path: the file that is written.
        is_ours: whether the package or the settings chose the name, and not the job.

    Raises:
        InvalidJob: the job's key can't be a path here.
        SettingsError: the folder may not be written.
        OutOfResources: it is a temporary file, and the disk is full.
        StorageUnavailable: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ConsumerError):
            raise
        what, reason = os.fspath(path), error.strerror or type(error).__name__
        if error.errno in _NOT_ALLOWED or (is_ours and error.errno in _BAD_NAME):
            raise SettingsError(
                f"download folder {what}: can't be written ({reason}); name another folder, or allow it"
            ) from error
        if error.errno in _BAD_NAME:
            raise InvalidJob(
                f"object {os.path.basename(what)}: can't be a local file ({reason}); rename the object"
            ) from error
        if error.errno in NO_ROOM and is_temporary(what):
            raise OutOfResources(
                f"object {os.path.basename(what)}: there is no room for it on the disk of temporary files ({reason}); "
                "give TMPDIR a larger disk, or submit a smaller file"
            ) from error
        raise StorageUnavailable(
            f"local file {os.path.basename(what)}: can't be written ({reason}); free some space"
        ) from error


def check_room(path: str | os.PathLike[str], size: int, what: str) -> None:
    """Refuse a temporary file that doesn't fit on its disk, before the first byte is written.

    Args:
        path: the file that will be written.
        size: its bytes.
        what: description of the file, for messages.

    Raises:
        InvalidJob: it is larger than the whole disk.
        OutOfResources: it is larger than the free space.
    """
    folder = os.path.dirname(os.fspath(path))
    if not is_temporary(path):
        return
    with local_disk(path):
        disk = shutil.disk_usage(folder)
    if 0 < disk.total < size:
        raise InvalidJob(
            f"{what}: {size} bytes are more than the worker's whole disk of temporary files has ({disk.total}); "
            "give TMPDIR a larger disk, or split the file"
        )
    if disk.total > 0 and disk.free < size:
        raise OutOfResources(
            f"{what}: {size} bytes are more than is free on the disk of temporary files ({disk.free}); "
            "free some space, or give TMPDIR a larger disk"
        )


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is in the folder of temporary files of jobs. Cached models can be elsewhere."""
    return Path(path).is_relative_to(tempfile.gettempdir())
