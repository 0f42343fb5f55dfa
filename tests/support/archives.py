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


def tar_block(name: str, kind: bytes, data: bytes = b"", linkname: str = "") -> bytes:
    """One entry of a tar, as it lies in the file."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = kind, len(data), linkname
    return entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def tar_of(*blocks: bytes) -> bytes:
    """A tar of such entries."""
    return b"".join(blocks) + bytes(2 * tarfile.BLOCKSIZE)


def tar_extended(records: Mapping[str, str]) -> bytes:
    """A tar of one image whose extended header has these records."""
    return tar_of(
        tar_block("x", tarfile.XHDTYPE, b"".join(_record(*each) for each in records.items())),
        tar_block("a.tif", tarfile.REGTYPE, TIF),
    )


def _record(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n".encode()
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size += 1
    return str(size).encode() + rest


def zip_patched(magic: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip of one image with another number at a place of a header."""
    data = bytearray(make_zip({"a.tif": TIF}))
    struct.pack_into(form, data, data.index(magic) + offset, value)
    return bytes(data)


def zip_with_zip64(directory_bytes: int) -> bytes:
    """A zip of one image with an end record of zip64 that tells this size of its directory."""
    data = make_zip({"a.tif": TIF})
    end = data.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, directory_bytes, 0)
    return data[:end] + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1) + data[end:]


def zip_commented(comment: bytes) -> bytes:
    """A zip of one image with a comment."""
    buffer = io.BytesIO(make_zip({"a.tif": TIF}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = comment
    return buffer.getvalue()


def zip_through_link() -> bytes:
    """A zip of a link to a folder, and of a file in it."""
    link = zipfile.ZipInfo("x")
    link.external_attr = (LINK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/tmp")
        archive.writestr("x/a.tif", TIF)
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
