"""What an error of obstore, or of the local disk, means for the worker."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from obstore.exceptions import GenericError, UnauthenticatedError

from redis_consumer.errors import (
    ConsumerError,
    InvalidJob,
    ObjectNotFound,
    PermanentError,
    SettingsError,
    StorageUnavailable,
)
from redis_consumer.machine import local_disk
from redis_consumer.storage.keys import BucketAddress
from redis_consumer.storage.transfer import as_ours

ADDRESS = BucketAddress("s3", "images")


def raised(error: Exception, verb: str = "download", key: str = "uploads/a.tif") -> ConsumerError:
    with pytest.raises(ConsumerError) as caught, as_ours(ADDRESS, verb, key):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("HTTP error: error sending request\n\nDebug source: Connection refused", StorageUnavailable, "refused"),
        ("HTTP error\n\nDebug source: dns error", StorageUnavailable, "name can't be resolved"),
        ("HTTP error\n\nDebug source: invalid peer certificate: UnknownIssuer", StorageUnavailable, "isn't trusted"),
        ("something new", StorageUnavailable, "no usable answer"),
        (
            "Unable to open file: No space left on device (os error 28)",
            StorageUnavailable,
            "disk of the bucket is full",
        ),
        ("Unable to open file: Permission denied (os error 13)", PermanentError, "permission denied"),
        ("Unable to open file: Read-only file system (os error 30)", StorageUnavailable, "read-only"),
        ("Unable to open file: Too many open files (os error 24)", StorageUnavailable, "too many files"),
        ("Unable to read file: Input/output error (os error 5)", StorageUnavailable, "fails"),
        ("Unable to open file: Not a directory (os error 20)", InvalidJob, "rename the file"),
        ("Unable to canonicalize filesystem root: /nope", SettingsError, "no such folder"),
        ("PUT http://169.254.169.254/latest/api/token - HTTP error", StorageUnavailable, "no credentials were given"),
        ("Server returned non-2xx status code: 507 X", StorageUnavailable, "failure of its own"),
        ("Server returned non-2xx status code: 413 X", PermanentError, "refuses the request"),
    ],
)
def test_each_kind_of_text(text: str, error: type[ConsumerError], words: str) -> None:
    ours = raised(GenericError(text))
    assert type(ours) is error
    assert words in str(ours)
    assert "object uploads/a.tif in bucket s3://images: download failed" in str(ours)


def test_a_missing_object_carries_its_key() -> None:
    assert raised(FileNotFoundError("Object at location uploads/a.tif not found")).key == "uploads/a.tif"


def test_a_missing_object_of_an_upload_is_a_missing_bucket() -> None:
    assert isinstance(raised(FileNotFoundError("not found"), "upload"), SettingsError)


def test_refused_credentials_name_their_variables() -> None:
    ours = raised(UnauthenticatedError("Server returned non-2xx status code: 401 Unauthorized"))
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(ours)


def test_without_a_key_the_bucket_is_named() -> None:
    assert str(raised(GenericError("x"), "list", "")).startswith("bucket s3://images: list failed")


def test_the_store_s_own_text_stays_in_the_cause() -> None:
    assert "secret-header" not in str(raised(GenericError("secret-header")))


def test_our_errors_pass_unchanged() -> None:
    error = ObjectNotFound("gone")
    with pytest.raises(ObjectNotFound) as caught, as_ours(ADDRESS, "download"):
        raise error
    assert caught.value is error


def test_bugs_pass_unchanged() -> None:
    with pytest.raises(TypeError), as_ours(ADDRESS, "download"):
        raise TypeError("a bug")


@pytest.mark.parametrize(
    ("number", "is_ours", "error"),
    [
        (errno.ENOSPC, False, StorageUnavailable),  # no temporary file
        (errno.EIO, True, StorageUnavailable),
        (errno.EACCES, False, SettingsError),
        (errno.EROFS, True, SettingsError),
        (errno.ENAMETOOLONG, False, InvalidJob),
        (errno.ENOTDIR, True, SettingsError),
    ],
)
def test_errors_of_the_local_disk(number: int, is_ours: bool, error: type[ConsumerError]) -> None:
    with pytest.raises(error), local_disk("/down/a.tif", is_ours=is_ours):
        raise OSError(number, "reason")


def test_our_errors_pass_through_the_disk() -> None:
    with pytest.raises(ObjectNotFound), local_disk("/down/a.tif"):
        raise ObjectNotFound("gone")


def test_the_room_imports_no_library_of_stores() -> None:
    code = "import sys, redis_consumer.storage; print([name for name in ('obstore', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
