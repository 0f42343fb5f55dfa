"""Reads from a bucket, and writes to a local folder instead of the bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from redis_consumer.storage.bucket import Storage


class ReadOnlyBucket:
    """A bucket for reading and a folder for writing. Objects that were written are read from the folder.

    It has the methods of a `Storage`.

    Args:
        bucket: the bucket. Nothing in it is changed.
        folder: an empty local folder.
    """

    def __init__(self, bucket: Storage, folder: Path) -> None:
        self._bucket = bucket
        self._folder = folder
        self._written = Storage(folder.as_uri())
        self._keys: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Forward other methods to the bucket. They only read."""
        return getattr(self._bucket, name)

    def keep(self, key: str) -> Path:
        """Copy an object into the folder, which is read from now on, and give its path.

        Raises:
            ObjectNotFound: the bucket has no such object.
        """
        key = self._bucket.key_of(key)
        path = Path(self._written.get_download_path(f"x/{key}", self._folder))
        self._bucket.download_file(key, path)
        self._keys.add(key)
        return path

    def download(self, filepath: str, download_dir: str | os.PathLike[str] | None = None) -> str:
        """See `Storage.download`."""
        key = self._bucket.key_of(filepath)
        return self._place(key).download(key, download_dir)

    def download_file(self, key: str, path: str | os.PathLike[str]) -> None:
        """See `Storage.download_file`."""
        key = self._bucket.key_of(key)
        self._place(key).download_file(key, path)

    def read_bytes(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See `Storage.read_bytes`."""
        key = self._bucket.key_of(key)
        return self._place(key).read_bytes(key, max_bytes=max_bytes)

    def exists(self, key: str) -> bool:
        """See `Storage.exists`."""
        key = self._bucket.key_of(key)
        return self._place(key).exists(key)

    def upload(
        self, filepath: str | os.PathLike[str], subdir: str | None = None, *, key: str | None = None
    ) -> tuple[str, str]:
        """Copy a file into the folder, see `Storage.upload`."""
        chosen, url = self._written.upload(filepath, subdir, key=key)
        self._keys.add(chosen)
        return chosen, url

    def upload_file(self, path: str | os.PathLike[str], key: str) -> str:
        """Copy a file into the folder, see `Storage.upload_file`."""
        return self.upload(path, key=key)[1]

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write into the folder, see `Storage.write_bytes`."""
        self._written.write_bytes(key, data)
        self._keys.add(self._bucket.key_of(key))

    def delete(self, key: str) -> None:
        """Delete from the folder. Nothing in the bucket is deleted."""
        key = self._bucket.key_of(key)
        if key in self._keys:
            self._written.delete(key)
            self._keys.remove(key)

    def _place(self, key: str) -> Storage:
        return self._written if key in self._keys else self._bucket
