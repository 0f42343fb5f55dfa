"""Reads, writes, lists and deletes the objects of a bucket."""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis_consumer import wanted
from redis_consumer.errors import ConsumerError, InvalidJob, ObjectNotFound
from redis_consumer.machine import local_disk
from redis_consumer.storage import transfer
from redis_consumer.storage.keys import OUTPUT_DIR, BucketAddress, Links, check_key, local_path, output_key
from redis_consumer.storage.stores import StorageOptions, Stores, check_writable, usual_options
from redis_consumer.storage.transfer import as_ours, refuses_access_rules
from redis_consumer.text import file_digest

logger = logging.getLogger(__name__)

# Field of a job whose value is downloaded. Messages name it.
_INPUT_FIELD = "field input_file_name"

# Most objects of a folder. Each costs a request and a file. An image of 40,000 x 40,000 pixels in chunks of 256 has
# 25,000.
_MOST_OBJECTS = 200_000


class Storage:
    """A bucket: S3, GCS, Azure, a local folder, or memory. Contract, sections 3 and 6.

    Connections are opened at the first use and kept. Several threads can use one object, but not a process that was
    forked after its first use. All methods raise `StorageUnavailable` if the store doesn't respond after the retries,
    `SettingsError` if the bucket or the credentials are wrong, `PermanentError` if the credentials don't suffice, and
    `InvalidJob` for a key that leads out of the bucket.

    >>> storage = Storage("memory://")
    >>> storage.write_bytes("uploads/a.txt", b"hello")
    >>> storage.read_bytes("uploads/a.txt")
    b'hello'

    Args:
        bucket_url: ``s3://bucket``, ``gs://bucket``, ``az://container`` (each also with a ``/prefix`` that all keys
            are put under), ``file:///folder`` or ``memory://``.
        download_dir: folder for downloads where a call names none; None for ``download`` in the working directory.
        options: attributes of `StorageOptions`. The settings give the others.

    Attributes:
        bucket: name of the bucket or container, or path of the folder.
        output_dir: first part of the keys of uploads.
        url: the bucket's URL.

    Raises:
        SettingsError: the URL, an option or a setting is wrong.
    """

    output_dir = OUTPUT_DIR

    def __init__(self, bucket_url: str, download_dir: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._address = BucketAddress.parse(bucket_url)
        self._options = StorageOptions(**{**usual_options(), **options})
        self._stores = Stores(self._address, self._options)
        self.download_dir = os.fspath(download_dir or "download")
        self.bucket = self._address.bucket
        self.url = self._address.url

    @cached_property
    def _links(self) -> Links:
        return self._stores.links()

    @property
    def bucket_url(self) -> str:
        """Address of the bucket in the contract's form, without a scheme for clouds."""
        return self._links.bucket_url

    def key_of(self, key_or_url: str) -> str:
        """Return the key of an object from its key or one of its URLs.

        Raises:
            InvalidJob: it is not an object of this bucket.
        """
        return self._links.key_of(key_or_url, _INPUT_FIELD)

    def get_storage_client(self) -> Any:
        """The connection itself, an ``obstore`` store."""
        return self._stores.reader()

    def get_download_path(self, filepath: str, download_dir: str | os.PathLike[str] | None = None) -> str:
        """Return the local path to which `download` writes an object, and make its folders.

        Args:
            filepath: key or URL of the object.
            download_dir: folder for it, else that of the constructor.
        """
        return self._download_path(self._links.key_of(filepath, _INPUT_FIELD), download_dir)

    def _download_path(self, key: str, download_dir: str | os.PathLike[str] | None) -> str:
        folder = os.fspath(download_dir or self.download_dir)
        with local_disk(folder, is_ours=True):
            os.makedirs(folder, exist_ok=True)
        path = local_path(key, folder)
        with local_disk(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def download(self, filepath: str, download_dir: str | os.PathLike[str] | None = None) -> str:
        """Download an object and give its local path.

        The path is `download_dir` and the key without its first part. The file appears only when it is complete.

        Args:
            filepath: key of the object, or one of its URLs.
            download_dir: folder for it, else that of the constructor.

        Raises:
            ObjectNotFound: there is no such object.
            InvalidJob: the key or URL isn't one of this bucket, or the object is too large.
        """
        key = self._links.key_of(filepath, _INPUT_FIELD)
        incoming = transfer.start(self._stores.reader(), self._address, key, self._options.max_download_bytes)
        path = self._download_path(key, download_dir)
        self._save(incoming, path)
        return path

    @staticmethod
    def _save(incoming: transfer.Incoming, path: str) -> None:
        digest = transfer.new_digest(incoming.key)
        incoming.save(path, digest)
        if digest is not None and (noted := transfer.recorded.get()) is not None:
            noted.add(transfer.Moved(incoming.key, incoming.size, digest.hexdigest()))

    def download_folder(self, filepath: str, download_dir: str | os.PathLike[str] | None = None) -> str:
        """Download every object below a key and give the local folder, laid out as `download` does.

        Raises:
            ObjectNotFound: there are none.
            InvalidJob: as `download`, with one limit for all of them together; or there are too many objects.
        """
        import obstore

        folder = self._links.key_of(filepath.rstrip("/"), _INPUT_FIELD)
        store, left = self._stores.reader(), self._options.max_download_bytes
        pages = iter(obstore.list(store, f"{folder}/"))
        found, parts = 0, []
        while True:
            with as_ours(self._address, "list", folder):
                page = wanted.wait_for(lambda: next(pages, None))
            if page is None:
                break
            for entry in page:
                incoming = transfer.start(store, self._address, entry["path"], left)
                found, left = found + 1, None if left is None else left - incoming.size
                if found > _MOST_OBJECTS:
                    raise InvalidJob(
                        f"object {folder}/ in {self._address.label}: holds more than {_MOST_OBJECTS} objects; "
                        "write it with larger chunks",
                        key=folder,
                    )
                digest = transfer.new_digest(entry["path"])
                incoming.save(self._download_path(entry["path"], download_dir), digest)
                if digest is not None:
                    parts.append(transfer.Moved(entry["path"], incoming.size, digest.hexdigest()))
        if not found:
            raise ObjectNotFound(
                f"object {folder}/ in {self._address.label}: there is none; upload it first", key=folder
            )
        if (noted := transfer.recorded.get()) is not None:
            noted.add(transfer.folder_of(folder, parts))
        return os.path.dirname(self._download_path(f"{folder}/x", download_dir))

    def download_beside(self, filepath: str, names: Sequence[str], folder: str | os.PathLike[str]) -> None:
        """Download other objects of the folder that an object is in. Those that aren't there are left out.

        Args:
            filepath: key of the object, or one of its URLs.
            names: of the other objects in its folder.
            folder: local folder for them, which exists.

        Raises:
            InvalidJob: as `download`, with one limit for all of them together.
        """
        key, left = self._links.key_of(filepath, _INPUT_FIELD), self._options.max_download_bytes
        for name in names:
            with contextlib.suppress(ObjectNotFound):
                other = f"{key.rpartition('/')[0]}/{name}".lstrip("/")
                incoming = transfer.start(self._stores.reader(), self._address, other, left)
                left = None if left is None else left - incoming.size
                self._save(incoming, os.path.join(folder, name))

    def download_file(self, key: str, path: str | os.PathLike[str]) -> None:
        """Download an object to exactly this path, whose folder exists.

        Raises:
            ObjectNotFound: there is no such object.
        """
        key = self._links.key_of(key)
        limit = self._options.max_download_bytes
        transfer.start(self._stores.reader(), self._address, key, limit).save(os.path.abspath(path))

    def local_object(self, key: str) -> Path | None:
        """Return the path of an object, or of a folder of objects, of a bucket that is a folder; None for any other.

        Raises:
            InvalidJob: it is a symbolic link that leads out of the folder.
        """
        key = self._links.key_of(key)
        if self._address.scheme != "file":
            return None
        transfer.check_inside(self._address, key)
        return Path(self._address.bucket, key)

    def take_file(self, path: Path, key: str) -> None:
        """Move a local file into the bucket under exactly this key. On one disk it is not copied.

        Raises:
            FileNotFoundError: there is no such local file.
        """
        key = check_key(key)
        target = self.local_object(key)
        if target is not None:
            with contextlib.suppress(OSError):  # another disk, for example; the bucket says what else is wrong
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
                return
        self._write(key, os.fspath(path))
        path.unlink()

    def signed_put(self, key: str, expire_s: float) -> str | None:
        """Return a link to which an object can be uploaded by one HTTP PUT; None for a bucket without such links."""
        import obstore

        key = check_key(key)
        if self._address.scheme in {"file", "memory"}:
            return None
        store: Any = self._stores.reader()
        with as_ours(self._address, "sign", key):
            return str(obstore.sign(store, "PUT", key, timedelta(seconds=expire_s)))

    def upload(
        self, filepath: str | os.PathLike[str], subdir: str | None = None, *, key: str | None = None
    ) -> tuple[str, str]:
        """Upload a local file and give its key and its link.

        Args:
            filepath: local path.
            subdir: folder below ``output/``, a leading slash is dropped.
            key: the whole key, instead of ``output/<subdir>/<name of the file>``.

        Returns:
            The key and `get_public_url` of it.

        Raises:
            FileNotFoundError: there is no such local file.
        """
        chosen = output_key(filepath, subdir) if key is None else check_key(key)
        return chosen, self.upload_file(filepath, chosen)

    def upload_file(self, path: str | os.PathLike[str], key: str) -> str:
        """Upload a local file under exactly this key and give its link.

        Raises:
            FileNotFoundError: there is no such local file.
        """
        key = check_key(key)
        self._write(key, os.fspath(path))
        if (noted := transfer.recorded.get()) is not None:
            noted.add(transfer.Moved(key, os.path.getsize(path), file_digest(path)), is_upload=True)
        return self.get_public_url(key)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write an object of these bytes."""
        self._write(check_key(key), data)

    def _write(self, key: str, source: str | bytes) -> None:
        try:
            self._write_once(key, source)
        except ConsumerError as error:
            if not refuses_access_rules(error):
                raise
            logger.warning(
                "bucket %s refuses public-read: uploads no longer ask for it; if its links must open for everybody, "
                "allow that for the whole bucket, or set RESULT_URLS=signed",
                self.url,
            )
            self._stores.stop_asking_public_read()
            self._write_once(key, source)

    def _write_once(self, key: str, source: str | bytes) -> None:
        store = self._stores.writer()
        if isinstance(source, bytes):
            transfer.put(store, self._address, key, source)
        else:
            transfer.from_disk(store, self._address, key, source)

    def read_bytes(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return the bytes of an object.

        Args:
            key: which object.
            max_bytes: the most it may have, None for any number.

        Raises:
            ObjectNotFound: there is no such object.
            InvalidJob: it has more than `max_bytes`.
        """
        key = self._links.key_of(key)
        return transfer.start(self._stores.reader(), self._address, key, max_bytes).read()

    def read_range(self, key: str, begin: int, end: int) -> bytes:
        """Return the bytes of an object from `begin` to before `end`.

        Raises:
            ObjectNotFound: there is no such object.
        """
        import obstore

        key = self._links.key_of(key)
        with as_ours(self._address, "download", key):
            return obstore.get_range(self._stores.reader(), key, start=begin, end=end).to_bytes()

    def exists(self, key: str) -> bool:
        """Return whether an object exists. A missing bucket looks like a missing object here."""
        import obstore

        key = self._links.key_of(key)
        try:
            with as_ours(self._address, "look up", key):
                obstore.head(self._stores.reader(), key)
        except ObjectNotFound:
            return False
        return True

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, None if there is no such object."""
        import obstore

        key = self._links.key_of(key)
        try:
            with as_ours(self._address, "look up", key):
                return int(obstore.head(self._stores.reader(), key)["size"])
        except ObjectNotFound:
            return None

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects below a folder, read page by page."""
        import obstore

        folder = check_key(prefix.strip("/"))
        pages = iter(obstore.list(self._stores.reader(), f"{folder}/"))
        while True:
            with as_ours(self._address, "list", folder):
                page = next(pages, None)
            if page is None:
                return
            yield from (str(entry["path"]) for entry in page)

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        import obstore

        key = check_key(key)
        with contextlib.suppress(ObjectNotFound), as_ours(self._address, "delete", key):
            obstore.delete(self._stores.writer(), key)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below `prefix`; none if the prefix doesn't exist.

        Args:
            prefix: a folder such as ``models``; empty for the whole bucket.
        """
        import obstore

        folder = prefix.strip("/")
        with as_ours(self._address, "list", folder):
            found = obstore.list_with_delimiter(self._stores.reader(), check_key(folder) if folder else None)
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found["common_prefixes"])

    def get_public_url(self, key: str) -> str:
        """Return a link to an object: plain, or signed and expiring, as ``result_urls`` says.

        A local folder and memory have no signatures, so their links are plain. A signed link ends with ``#`` and the
        object's name. This part isn't sent to the store. The kiosk's client uses it as the name of the result's file.
        """
        import obstore

        key = self._links.key_of(key)
        if not self._options.is_signed or self._address.scheme in {"file", "memory"}:
            return self._links.public_url(key)
        store: Any = self._stores.reader()
        with as_ours(self._address, "sign", key):
            signed = obstore.sign(store, "GET", key, timedelta(seconds=self._options.signed_url_expire_s))
        return f"{signed}#/{quote(posixpath.basename(key))}"

    def prepare(self) -> None:
        """Check the settings before the first job, without a request to the store. `check` sends a request.

        A local folder must exist and be writable, a file of credentials readable, and keys well-formed.

        Raises:
            SettingsError: one of these is wrong. The message says which, and what to do.
        """
        self._stores.prepare()

    def check(self) -> str:
        """Send one request to the bucket and describe what responded. Nothing is written.

        Raises:
            ConsumerError: it doesn't respond. The message says what to fix.
        """
        import obstore

        with as_ours(self._address, "list"):
            next(iter(obstore.list(self._stores.prober(), OUTPUT_DIR, chunk_size=1)), None)
        if self._address.scheme == "file":
            check_writable(self._address)
        kind = "signed links that expire" if self._options.is_signed else "public links"
        return f"bucket {self.url} answers; results get {kind} such as {self._links.public_url('output/result.zip')}"
