"""Reads the URL of a bucket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from redis_consumer.errors import SettingsError

SCHEMES = ("s3", "gs", "az", "file", "memory")

_ALLOWED = "s3://bucket, gs://bucket, az://container (each with or without /prefix), file:///folder, memory://"


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
        """Give the store's own key of an object."""
        return f"{self.prefix}/{key}" if self.prefix else key
