"""Receives the file of a form (``multipart/form-data``), which goes to the disk piece by piece."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from redis_consumer.text import in_utf8

#: Bytes of the disk that stay free.
_FREE_BYTES = 256 << 20
_MAX_HEADER_BYTES = 16 << 10

#: Seconds after which a file that is not written any more is removed.
_ABANDONED_S = 24 * 3600
_lock = threading.Lock()
_last_ms = 0


class NoFile(Exception):
    """The form holds no file, or cannot be read."""


class TooLarge(Exception):
    """The file is larger than allowed, or than the disk."""


class FormReader:
    """Finds the first file of a form, and writes it to the disk.

    Args:
        boundary: between the parts.
        field: name of the file's field.
        path: for the content.
        most_bytes: largest size; 0 for any.
    """

    def __init__(self, boundary: bytes, field: bytes, path: Path, most_bytes: int) -> None:
        self.name: str | None = None
        self.is_complete = False
        self._field = field
        self._path = path
        self._most_bytes = most_bytes
        self._size = 0
        self._header_name, self._header_value, self._headers = b"", b"", {}  # type: tuple[bytes, bytes, dict[bytes, bytes]]
        self._file: IO[bytes] | None = None
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._write,
                "on_part_end": self._end,
            },
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._header_name, self._header_value, self._headers = b"", b"", {}

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > _MAX_HEADER_BYTES or len(self._headers) > 20:
            raise NoFile

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name, self._header_value = b"", b""

    def _open(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if (
            kind != b"form-data"
            or options.get(b"name") != self._field
            or b"filename" not in options
            or self.name is not None
        ):
            return
        self.name = _decoded(options[b"filename"])
        self._file = self._path.open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is None or self._file.closed:
            return
        self._size += end - start
        if self._most_bytes and self._size > self._most_bytes:
            raise TooLarge(f"the file is larger than {self._most_bytes} bytes; split it")
        self._file.write(data[start:end])

    def _end(self) -> None:
        if self._file is not None and not self._file.closed:
            self._file.close()
            self.is_complete = True


async def receive_file(request: Request, folder: Path, most_bytes: int, field: str = "file") -> tuple[str, Path]:
    """Receive the file of a form.

    Args:
        request: with the form.
        folder: for the content.
        most_bytes: largest size; 0 for any.
        field: name of the file's field.

    Returns:
        The name that the form gives to the file, and the path of its content, which the caller removes.

    Raises:
        NoFile: the form holds no such file, or is not complete.
        TooLarge: the file is larger than `most_bytes`, or than the disk.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise NoFile
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    _check_size(request, folder, most_bytes)
    path = folder / secrets.token_hex(16)
    reader = FormReader(options[b"boundary"], field.encode(), path, most_bytes)
    try:
        async for piece in request.stream():
            reader.parser.write(piece)
        reader.parser.finalize()
        if not reader.is_complete or reader.name is None:
            raise NoFile
    except BaseException as error:
        reader.close()
        path.unlink(missing_ok=True)
        if isinstance(error, FormParserError):
            raise NoFile from error
        if isinstance(error, OSError):
            raise TooLarge("the disk of the server is full; try again later") from error
        raise
    return reader.name, path


def _remove_old(folder: Path) -> None:
    """Remove what a killed server has left."""
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()


def _check_size(request: Request, folder: Path, most_bytes: int) -> None:
    """Refuse a form that is too large before its content comes."""
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal():
        return
    if most_bytes and int(announced) > most_bytes + _MAX_HEADER_BYTES:
        raise TooLarge(f"the file is larger than {most_bytes} bytes; split it")
    free = shutil.disk_usage(folder).free - _FREE_BYTES
    if int(announced) > free:
        raise TooLarge(f"the file does not fit on the disk of the server, which has {max(free, 0)} bytes left")


def upload_name(name: str) -> str:
    """Return the name of an upload in the bucket: MD5 of the name and the time in milliseconds, and the last suffix.

    >>> upload_name("a.tar.gz").endswith(".gz"), upload_name("folder.x/cells")[32:]
    (True, '')
    """
    global _last_ms
    with _lock:
        _last_ms = max(int(time.time() * 1000), _last_ms + 1)
        moment = _last_ms
    digest = hashlib.md5(f"{name}_{moment}".encode(), usedforsecurity=False).hexdigest()
    suffix = re.search(r"[^.]\.([A-Za-z0-9_-]{1,20})$", name)
    return f"{digest}.{suffix[1]}" if suffix else digest


def _decoded(name: bytes) -> str:
    """Return the name of a file without its folders. Browsers and clients send UTF-8, some older ones Latin-1."""
    text = ""
    with suppress(UnicodeDecodeError):
        text = name.decode("utf-8")
    text = text or name.decode("latin-1")
    return in_utf8(re.split(r"[\\/]", text)[-1])
