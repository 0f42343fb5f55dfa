"""Archives as strangers make them, good and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

TIF = b"II*\0" + b"pixels"


def make_zip(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An ordinary zip of these members."""
    pairs = members.items() if isinstance(members, Mapping) else members
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in pairs:
            archive.writestr(name, data)
    return buffer.getvalue()


def zip_with(name: str, data: bytes = TIF, **attributes: object) -> bytes:
    """A zip of one member whose entry has these attributes."""
    entry = zipfile.ZipInfo(name)
    # The constructor cleans names.
    entry.filename = name
    for attribute, value in attributes.items():
        setattr(entry, attribute, value)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, data)
    return buffer.getvalue()


def zip_of_kind(kind: int) -> bytes:
    """A zip of a link or a device."""
    return zip_with("a.tif", b"/etc/passwd", external_attr=(kind | 0o644) << 16)


def zip_flagged(bits: int) -> bytes:
    """A zip whose member says by its flags that it is encrypted."""
    data = bytearray(make_zip({"a.tif": TIF}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(magic) + offset
        struct.pack_into("<H", data, at, bits)
    return bytes(data)


def zip_method(number: int) -> bytes:
    """A zip whose member is packed in an odd way."""
    data = bytearray(make_zip({"a.tif": TIF}))
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(magic) + offset, number)
    return bytes(data)


def zip_corrupt() -> bytes:
    """A zip with a flipped byte in its member."""
    data = bytearray(make_zip({"a.tif": os.urandom(4000)}, zipfile.ZIP_STORED))
    data[1000] ^= 255
    return bytes(data)


def zip_overlapping(count: int, size: int) -> bytes:
    """A zip whose entries all name the same packed bytes."""
    whole = make_zip([("a.tif", bytes(size))])
    begin = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    body, header = whole[:begin], whole[begin:end]
    name_at = header.index(b"a.tif")
    entries = b""
    for number in range(count):
        name = f"{number:05}.tif".encode()
        entry = bytearray(header[:name_at] + name + header[name_at + 5 :])
        struct.pack_into("<H", entry, 28, len(name))
        entries += entry
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), len(body), 0)
    return body + entries + tail


def zip_lying_about_size() -> bytes:
    """A zip whose member says that it has 1 byte, and unpacks to far more."""
    data = bytearray(make_zip({"a.tif": bytes(1 << 20)}))
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.index(magic) + offset, 1)
    return bytes(data)


def make_tar(members: Mapping[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """An ordinary tar of these members; mode ``w:gz`` packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_of_kind(kind: bytes, linkname: str = "/etc/passwd") -> bytes:
    """A tar of a link or a device."""
    entry = tarfile.TarInfo("a.tif")
    entry.type, entry.linkname = kind, linkname
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)
    return buffer.getvalue()


def tar_saying_size(size: int) -> bytes:
    """A tar whose member says that it has so many bytes, and has few."""
    data = bytearray(make_tar({"a.tif": TIF}, form=tarfile.USTAR_FORMAT))
    data[124:136] = f"{size:011o}\0".encode() if size >= 0 else struct.pack(">B3xq", 0xFF, size)
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


def tar_corrupt_header() -> bytes:
    """A tar whose second header is damaged."""
    data = bytearray(make_tar({"a.tif": TIF, "b.tif": TIF}, form=tarfile.USTAR_FORMAT))
    data[1024 + 150] ^= 255
    return bytes(data)


def tar_long_name(size: int) -> bytes:
    """A tar, packed, whose member's name takes so many bytes."""
    return make_tar({"x" * size + ".tif": TIF}, "w:gz", tarfile.GNU_FORMAT)


def gzip_bomb(size: int) -> bytes:
    """A packed tar of one image that is nothing but zeros."""
    return make_tar({"a.tif": bytes(size)}, "w:gz")


def concatenated(*parts: bytes) -> bytes:
    """Several gzip streams in a row, which is one to gzip."""
    return b"".join(map(gzip.compress, parts))


LINK, CHARACTER_DEVICE, FIFO, SOCKET = stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK
