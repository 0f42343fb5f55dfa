"""Pictures and OME-Zarrs that are small and would take hours, see `support.attacks`."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from support.attacks import Attack, zarr

_SIDE = 2048


def _file(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _jpeg_of_fill(path: Path) -> None:
    """A JPEG with 64 MiB of 0xFF before its first segment."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint8)).save(buffer, "JPEG")
    content = buffer.getvalue()
    path.write_bytes(content[:2] + b"\xff" * (64 << 20) + content[2:])


def _jpeg_of_scans(path: Path) -> None:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint8)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + 3000 * last + data[-2:])


def _png(side: int, *parts: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *parts, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _png_of_text(path: Path) -> None:
    long, rows = zlib.compress(bytes(200 << 20), 9), zlib.compress(bytes(64 * 65))
    path.write_bytes(_png(64, (b"zTXt", b"a\0\0" + long), (b"iCCP", b"a\0\0" + long), (b"IDAT", rows)))


def _gif_of_frames(path: Path) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.full((4, 4), 255 * number, np.uint8)) for number in (0, 1)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    last = data[data.rindex(b"!\xf9") : -1]
    path.write_bytes(data[:-1] + 100_000 * last + data[-1:])


def _packed_chunk(*, is_lying: bool) -> Callable[[Path], object]:
    """A chunk that the zip archive around it has packed: it unpacks to 300 MB, and may say that it doesn't."""
    size = 300 << 20

    def write(path: Path) -> None:
        zarr((64, 64), (64, 64))(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0/0/0", bytes(size))
        if is_lying:
            path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 8192)))

    return write


def _many_files(path: Path) -> None:
    """A zip archive whose end says that its directory has 100 MB, all of one name."""
    zarr((64, 64), (64, 64))(path)
    name = b"0/x"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    count = (100 << 20) // len(entry)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end)


ATTACKS: dict[str, Attack] = {
    "fill bytes of a JPEG": Attack(_jpeg_of_fill, "has 6[0-9]{7} fill bytes, allowed are 1048576", suffix=".jpg"),
    "scans of a JPEG": Attack(_jpeg_of_scans, "has 3[0-9]{3} scans, allowed are 200", suffix=".jpg"),
    "sides of a PNG": Attack(_file(_png(2**31 - 1, (b"IDAT", b""))), "claims more pixels", suffix=".png"),
    "text of a PNG": Attack(_png_of_text, "damaged", suffix=".png"),
    "pixels of a PNG": Attack(_file(_png(64, (b"IDAT", zlib.compress(bytes(200 << 20), 9)))), "", suffix=".png"),
    "length of a PNG": Attack(_file(_png(64, (b"IDAT", bytes(20 << 20)))), "bytes, allowed are", suffix=".png"),
    "frames of a GIF": Attack(_gif_of_frames, "holds several pictures", suffix=".gif"),
    "spaces of a PPM": Attack(
        _file(b"P6 " + bytes(20 << 20).replace(b"\0", b" ") + b"8 8 255 "), "header", suffix=".ppm"
    ),
    "comment of a PGM": Attack(_file(b"P5 #" + b"x" * (20 << 20) + b"\n8 8 255 "), "header", suffix=".pgm"),
    "packed chunk": Attack(_packed_chunk(is_lying=False), "unpacks to 300 MiB.*64 MiB", suffix=".zarr.zip"),
    "packed chunk that lies": Attack(_packed_chunk(is_lying=True), "damaged", suffix=".zarr.zip"),
    "files of a zip archive": Attack(_many_files, "zip archive has more than the 25165824 bytes", suffix=".zarr.zip"),
}
