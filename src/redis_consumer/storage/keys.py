"""Names the objects of a bucket: checks their keys, and gives their local paths and URLs."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import os
import re
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.job import Job, OrphanedResult
from redis_consumer.text import in_utf8, url_in_path

logger = logging.getLogger(__name__)

OUTPUT_DIR = "output"

_LONGEST_KEY_BYTES = 1024
_LONGEST_PART_BYTES = 255

# Types of machines differ. These are the types of our own files, and must be the same everywhere.
_CONTENT_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".npy": "application/octet-stream",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".zip": "application/zip",
}
SCHEMES = ("s3", "gs", "az", "file", "memory")
_ALLOWED = "s3://bucket, gs://bucket, az://container (each with or without /prefix), file:///folder, memory://"
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
# Hosts that serve any bucket, by path or with the bucket's name in the host name.
_SERVICE_HOSTS = {
    "s3": re.compile(r"s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?"),
    "gs": re.compile(r"storage\.googleapis\.com|storage\.cloud\.google\.com"),
    "az": re.compile(r"[a-z0-9]+\.blob\.core\.windows\.net"),
}
_HOST_START = re.compile(r"(s3[.-]|[^/]*\.s3[.-]|storage\.|www\.)[^/]*(amazonaws\.com|googleapis\.com)(\.cn)?/")
_JSON_API = re.compile(r"(/download|/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<key>.+)")


def check_key(key: str, what: str = "object key") -> str:
    """Check that a key can't lead out of its bucket or folder, and give it without a leading slash.

    Args:
        key: name of an object, its parts joined by ``/``.
        what: its name in messages, such as ``field input_file_name``.

    Raises:
        InvalidJob: the key is empty, too long, ends as a folder does, or has a part that is empty, ``.`` or ``..``,
            a backslash or a control character.
    """
    stripped = key[1:] if key.startswith("/") else key
    problem = _problem(stripped)
    if problem:
        raise InvalidJob(
            f"{what}: {key[:200]!r} {problem}; give a key such as uploads/image.tif",
            key=in_utf8(key),
        )
    return stripped


def _problem(key: str) -> str | None:
    parts = key.split("/")
    if not key:
        return "is empty"
    if any(part in {".", ".."} for part in parts):
        return "has . or .. as a part"
    if "" in parts:
        return "names a folder" if key.endswith("/") and "" not in parts[:-1] else "has an empty part"
    if "\\" in key or any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "has a backslash or a control character"
    return _size_problem(key, parts)


def _size_problem(key: str, parts: list[str]) -> str | None:
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "isn't valid Unicode"
    if len(key.encode()) > _LONGEST_KEY_BYTES or max(sizes) > _LONGEST_PART_BYTES:
        return f"is longer than {_LONGEST_KEY_BYTES} bytes, or {_LONGEST_PART_BYTES} in one part"
    return None


def local_path(key: str, download_dir: str | os.PathLike[str]) -> str:
    """Return the path below `download_dir` for an object: the key without its first part (contract, section 3).

    >>> local_path("uploads/a/b.tif", "/tmp/job")
    '/tmp/job/a/b.tif'
    >>> local_path("b.tif", "/tmp/job")
    '/tmp/job/b.tif'
    """
    _, slash, rest = key.partition("/")
    return os.path.join(os.fspath(download_dir), *(rest if slash else key).split("/"))


def output_key(filepath: str | os.PathLike[str], subdir: str | None = None) -> str:
    """Return the key under which a local file is uploaded (contract, section 3).

    >>> output_key("/tmp/job/result.zip", "/plate/1")
    'output/plate/1/result.zip'
    """
    folder = (subdir or "").strip("/")
    start = f"{OUTPUT_DIR}/{folder}" if folder else OUTPUT_DIR
    return check_key(f"{start}/{os.path.basename(os.fspath(filepath))}")


def content_type(key: str) -> str:
    """Return the media type of an object by the suffix of its key; if it isn't known, that of plain bytes."""
    ending = os.path.splitext(key)[1].lower()
    return _CONTENT_TYPES.get(ending) or mimetypes.guess_type("x" + ending)[0] or "application/octet-stream"


def strip_bucket_path(path: str) -> str:
    """Join repeated slashes of a bucket path into one and drop those at its ends.

    >>> strip_bucket_path("/models//nuclear/")
    'models/nuclear'
    """
    return re.sub(r"/+", "/", path).strip("/")


def zip_name(job: Job, number: int = 0) -> str:
    """Return the name of a zip of one run of a job. It is unique, so a late run can't overwrite the result of another.

    Args:
        job: the job with the number of the run.
        number: number of zips that this run has uploaded before.
    """
    text = f"{job.id}:{job.attempt}" + (f":{number}" if number else "")
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest() + ".zip"


def record_key(job: Job) -> str:
    """Return the key of the provenance record of one run of a job, beside its zip.

    >>> record_key(Job("predict:a.tif:1"))
    'output/f7ed7baaf8b638c92af6e3e2d5462f94.provenance.json'
    """
    return output_key(zip_name(job).removesuffix(".zip") + ".provenance.json")


def discard_record(storage: Any, orphan: OrphanedResult) -> None:
    """Remove the provenance record of one run, but never the visible one."""
    key = record_key(orphan.job)
    if hasattr(storage, "delete") and key != orphan.record:
        storage.delete(key)


def discard_zips(storage: Any, orphan: OrphanedResult) -> None:
    """Remove the zips that one run has uploaded, but never the visible one."""
    if not hasattr(storage, "delete"):
        return
    keys = (output_key(zip_name(orphan.job, number)) for number in count())
    # The first one is removed last. If it is gone, so are the others.
    found = [key for key in reversed(list(takewhile(storage.exists, keys))) if key != orphan.visible]
    for key in found:
        storage.delete(key)
        logger.info("Deleted %s, which attempt %d left", key, orphan.job.attempt)


@dataclass(frozen=True)
class BucketAddress:
    """A bucket and the part of it that the worker uses.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: name of the bucket or container; the absolute path of the folder for ``file``.
        prefix: first part of all keys in the bucket, without a slash at its ends; empty for none.
    """

    scheme: str
    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> BucketAddress:
        """Read a bucket's URL.

        Scheme and bucket names can be in upper case, as in the contract. Folders and prefixes are case-sensitive.

        >>> BucketAddress.parse("S3://Images/plate-1/")
        BucketAddress(scheme='s3', bucket='images', prefix='plate-1')
        >>> BucketAddress.parse("file:///data/my%20bucket").bucket
        '/data/my bucket'

        Raises:
            SettingsError: it isn't a URL of a bucket. The message lists the forms that are accepted.
        """
        parts = urlsplit(url.strip())
        if parts.scheme not in SCHEMES:
            raise SettingsError(f"STORAGE_BUCKET: {url!r} isn't known; give {_ALLOWED}")
        if "@" in parts.netloc:
            raise SettingsError(
                f"STORAGE_BUCKET: {parts.scheme}:// holds a name or password before '@'; give {_ALLOWED}"
            )
        if parts.query or parts.fragment:
            raise SettingsError(f"STORAGE_BUCKET: {url!r} has a part after ? or #; give {_ALLOWED}")
        if parts.scheme == "file":
            return cls._of_folder(url, parts.netloc, unquote(parts.path))
        if parts.scheme != "memory" and not parts.netloc:
            raise SettingsError(f"STORAGE_BUCKET: {url!r} names no bucket; give {_ALLOWED}")
        prefix = parts.path.strip("/")
        if any(part in {"", ".", ".."} for part in prefix.split("/")) and prefix:
            raise SettingsError(f"STORAGE_BUCKET: {url!r} has an empty part or dots in its prefix; give {_ALLOWED}")
        return cls(parts.scheme, parts.netloc.lower(), prefix)

    @classmethod
    def _of_folder(cls, url: str, host: str, path: str) -> BucketAddress:
        if host not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
            raise SettingsError(f"STORAGE_BUCKET: {url!r} is no local folder; give file:///folder, three slashes")
        return cls("file", os.path.normpath("/" + path.lstrip("/")))

    @property
    def label(self) -> str:
        """The bucket's URL for a job's reason, without the path of a local folder."""
        return "the local folder" if self.scheme == "file" else f"bucket {self.url}"

    @property
    def url(self) -> str:
        """The URL in its plain form, as messages name the bucket."""
        if self.scheme == "file":
            return f"file://{self.bucket}"
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def full_key(self, key: str) -> str:
        """Return the store's own key of an object."""
        return f"{self.prefix}/{key}" if self.prefix else key


@dataclass(frozen=True)
class Links:
    """The URLs of one bucket.

    Attributes:
        address: the bucket.
        endpoint: address of a server of its own, without a slash at the end; None for the cloud's.
        account: storage account for Azure.
    """

    address: BucketAddress
    endpoint: str | None = None
    account: str | None = None

    @property
    def bucket_url(self) -> str:
        """Return the contract's ``bucket_url``. It has no scheme for clouds, and a browser can't open it."""
        if self.address.scheme == "gs" and not self.endpoint:
            return f"www.googleapis.com/storage/v1/b/{self.address.bucket}/o"
        if self.address.scheme in {"file", "memory"}:
            return self.address.url
        return self._root.partition("://")[2]

    @property
    def _root(self) -> str:
        bucket = self.address.bucket
        roots = {
            "s3": f"{self.endpoint or 'https://s3.amazonaws.com'}/{bucket}",
            "gs": f"{self.endpoint or 'https://storage.googleapis.com'}/{bucket}",
            "az": f"{self.endpoint or f'https://{self.account}.blob.core.windows.net'}/{bucket}",
            "memory": f"memory://{bucket}",
        }
        return roots[self.address.scheme]

    def public_url(self, key: str) -> str:
        """Return the URL of an object, percent-encoded. Anyone can open it if the bucket allows public reads."""
        if self.address.scheme == "file":
            return Path(self.address.bucket, key).as_uri()
        return f"{self._root}/{quote(self.address.full_key(key), safe='/~')}"

    def key_of(self, text: str, what: str = "object key") -> str:
        """Return the key for a key or a URL of this bucket.

        It accepts the store's public URLs (by path, with the bucket as host, of a region, of the JSON interface,
        signed), ``s3://bucket/key`` and similar forms, and ``file://`` URLs, percent-encoded or not. It also accepts
        paths that the kiosk's client makes of URLs, such as ``uploads/../https:/host/bucket/key``.

        Args:
            text: a key or a URL.
            what: its name in messages.

        Raises:
            InvalidJob: a URL of another bucket, or a key that `check_key` refuses.
        """
        url = text if _URL.match(text) else f"https://{text}" if _HOST_START.match(text) else None
        # Without dots, a text that looks like a URL behind folders can also be a key.
        may_be_key = url is None and ".." not in unquote(text)
        url = url or url_in_path(text)
        if url is None:
            return check_key(text, what)
        try:
            key = self._within(url)
        except ValueError:
            key = None
        if key is None and not may_be_key:
            raise InvalidJob(
                f"{what}: {text[:200]!r} is a URL outside of the bucket {self.address.url}; upload the file there "
                "or give its key",
                key=text,
            )
        return check_key(text if key is None else key, what)

    def _within(self, url: str) -> str | None:
        """Return the key of a URL; None if it isn't of this bucket."""
        scheme, _, rest = url.partition("://")
        scheme = scheme.lower()
        if scheme in {"http", "https"}:
            return self._without_prefix(self._of_web_url(url))
        if scheme != self.address.scheme:
            return None
        if scheme == "file":
            return self._of_file_url(url)
        host, _, key = rest.partition("/")
        key = unquote(key, errors="strict") if scheme == "memory" else key
        return self._without_prefix(key) if host.lower() == self.address.bucket else None

    def _without_prefix(self, key: str | None) -> str | None:
        if key is None or not self.address.prefix:
            return key
        start = self.address.prefix + "/"
        return key[len(start) :] if key.startswith(start) else None

    def _of_file_url(self, url: str) -> str | None:
        parts = urlsplit(url)
        path = PurePosixPath(unquote(parts.path, errors="strict"))
        for root in (self.address.bucket, os.path.realpath(self.address.bucket)):
            if parts.netloc in {"", "localhost"} and path.is_relative_to(root):
                return str(path.relative_to(root))
        return None

    def _of_web_url(self, url: str) -> str | None:
        parts = urlsplit(url)
        key = self._of_endpoint(parts.netloc, parts.path)
        if key is None:
            key = self._of_service(parts.hostname or "", parts.path)
        return None if key is None else unquote(key, errors="strict")

    def _of_endpoint(self, netloc: str, path: str) -> str | None:
        if not self.endpoint:
            return None
        own = urlsplit(self.endpoint)
        if netloc.lower() == own.netloc.lower() and path.startswith(own.path):
            return self._of_path(path[len(own.path) :])
        if netloc.lower() == f"{self.address.bucket}.{own.netloc.lower()}":
            return path.removeprefix("/")
        return None

    def _of_service(self, host: str, path: str) -> str | None:
        scheme, bucket = self.address.scheme, self.address.bucket
        hosts = _SERVICE_HOSTS.get(scheme)
        if hosts is None:
            return None
        is_service = hosts.fullmatch(host) is not None
        if scheme == "gs" and (is_service or host == "www.googleapis.com") and (api := _JSON_API.fullmatch(path)):
            return api["key"] if api["bucket"] == bucket else None
        if is_service:
            return self._of_path(path) if self._is_account(host) else None
        if scheme != "az" and host.startswith(f"{bucket}.") and hosts.fullmatch(host[len(bucket) + 1 :]):
            return path.removeprefix("/")
        return None

    def _is_account(self, host: str) -> bool:
        return self.address.scheme != "az" or host.partition(".")[0] == self.account

    def _of_path(self, path: str) -> str | None:
        bucket, _, key = path.removeprefix("/").partition("/")
        return key if bucket == self.address.bucket else None
