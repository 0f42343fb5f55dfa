"""Small files of microscopes' programs, codecs and arrays that claim much, see `support.attacks`."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from support import vendors
from support.attacks import Attack
from support.ome_files import write_ome_files

GREY = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
_HUGE = 2**31 - 1


def _changed(write: Callable[[Path], Any], *changes: tuple[bytes, bytes]) -> Callable[[Path], object]:
    """A file in which each first text is replaced by the second one, where it comes first."""

    def make(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        for old, new in changes:
            assert old in data
            data = data.replace(old, new, 1)
        path.write_bytes(data)

    return make


def _czi(path: Path) -> None:
    vendors.write_czi(path, [({}, GREY)], codec="zstd")


def _czi_bomb(path: Path) -> None:
    """A tile of 64 x 64 px whose data unpack to 256 MB."""
    codecs = dict(vendors.CZI_CODECS)
    vendors.CZI_CODECS["bomb"] = 5, lambda _: bytes(imagecodecs.zstd_encode(bytes(1 << 28)))
    try:
        vendors.write_czi(path, [({}, GREY)], codec="bomb")
    finally:
        vendors.CZI_CODECS.clear()
        vendors.CZI_CODECS.update(codecs)


def _czi_far(path: Path) -> None:
    vendors.write_czi(path, [({"X": 0}, GREY), ({"X": 2_000_000_000, "M": 1}, GREY)])


def _side(side: int) -> bytes:
    """The entry of the axis X of a CZI."""
    return struct.pack("<4siifi", b"X", 0, side, 0, side)


def _lif(path: Path) -> None:
    vendors.write_lif(path, {"One": ("YX", GREY)})


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def _nd2(path: Path, **options: Any) -> None:
    vendors.write_nd2(path, [GREY[..., None]], **options)


def _nd2_bomb(path: Path) -> None:
    _nd2(path, is_packed=True)
    data = path.read_bytes()
    at = data.index(zlib.compress(GREY.tobytes())[:40])
    bomb = zlib.compress(bytes(1 << 26), 9)[: len(zlib.compress(GREY.tobytes()))]
    path.write_bytes(data[:at] + bomb + data[at + len(bomb) :])


def _nd2_table(value: bytes) -> Callable[[Path], object]:
    """An ND2 whose attributes are these bytes."""
    return lambda path: _nd2(path, attributes_chunk=value)


def _deep() -> bytes:
    table = b""
    for _ in range(1000):
        table = bytes([11, 1]) + b"\0\0" + struct.pack("<IQ", 1, len(table) + 16) + table
    return table


def _npz(*, shape: tuple[int, ...], size: int, header: bytes = b"") -> Callable[[Path], object]:
    """An NPZ whose array says a shape, and has so many bytes of zeros, deflated."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def write(path: Path) -> None:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("arr_0.npy", "w", force_zip64=True) as file,
        ):
            file.write(header or buffer.getvalue())
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))

    return write


def _jxl_of(side: int) -> bytes:
    """The first bytes of a JPEG XL of these sides."""
    bits = 0 | 3 << 1 | (side - 1) << 3 | 1 << 33  # not small, 30 bits for the height, as wide as high
    return b"\xff\x0a" + bits.to_bytes(8, "little") + bytes(200)


def _jxr_of(side: int) -> bytes:
    data = bytearray(imagecodecs.jpegxr_encode(GREY))
    at = data.index(b"WMPHOTO\0")
    data[at + 10] &= 0x7F
    data[at + 12 : at + 20] = struct.pack(">II", side - 1, side - 1)
    return bytes(data)


def _webp_of(side: int) -> bytes:
    bits = (side - 1) | (side - 1) << 14
    chunk = b"VP8L" + struct.pack("<IBI", 64, 0x2F, bits) + bytes(59)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def _plate(path: Path, count: int = 3_456) -> None:
    wells = json.dumps({"plate": {"wells": [{"path": f"A/{number}"} for number in range(count)]}})
    well = json.dumps({"well": {"images": [{"path": str(number)} for number in range(1000)]}})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        archive.writestr(".zattrs", wells)
        for number in range(20):
            archive.writestr(f"A/{number}/.zattrs", well)


#: The number of axes of a tile, and the first of them.
_AXES_OF_CZI = struct.pack("<i4s", 2, b"X")
_DAMAGED = "damaged|pixels|can't be read|holds"
MAGIC = {
    "CZI": b"ZISRAWFILE\0\0\0\0\0\0",
    "ND2": b"\xda\xce\xbe\x0a",
    "LIF": b"\x70\0\0\0\x40\0\0\0\x2a",
    "JPEG XL": b"\xff\x0a",
    "JPEG XR": b"II\xbc\x01",
    "WebP": b"RIFF\0\1\0\0WEBPVP8 ",
    "AVIF": b"\0\0\0\x1cftypavif",
    "NPZ": b"PK\3\4" + bytes(22) + b"\x09\0\0\0arr_0.npy",
}


def _random(magic: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(magic + np.random.default_rng(list(magic)).bytes(100_000))


def _names(first: str) -> Callable[[int, int, int], str]:
    """Names of the files of an OME-TIFF, one for each time."""
    return lambda t, z, c: first if t == 0 else f"{t}.tif"


def _several(path: Path, *changes: tuple[bytes, bytes]) -> None:
    """The first of two files of an OME-TIFF, with changed metadata."""
    image = np.zeros((2, 1, 1, 64, 64), np.uint8)
    files = write_ome_files(path.parent, image, _names(path.name), change=changes)
    assert files[0] == path


ATTACKS: dict[str, Attack] = {
    **{
        f"random bytes of {kind}": Attack(
            _random(magic),
            f"{_DAMAGED}|allowed are",
        )
        for kind, magic in MAGIC.items()
    },
    "tile of CZI": Attack(_changed(_czi, (_side(64), _side(_HUGE)), (_side(64), _side(_HUGE))), "damaged|px wide"),
    "tile of CZI that unpacks": Attack(_czi_bomb, "damaged"),
    "tiles of CZI at distant places": Attack(_czi_far, "px wide|MiB"),
    "tiles of CZI": Attack(
        _changed(_czi, (struct.pack("<i124x", 1) + b"DV", struct.pack("<i124x", _HUGE) + b"DV")), f"has {_HUGE} tiles"
    ),
    "axes of CZI": Attack(_changed(_czi, *[(_AXES_OF_CZI, b"\xff\xff\xff\x7fX\0\0\0")] * 2), "damaged"),
    "side of LIF": Attack(
        _changed(_lif, (_utf16('NumberOfElements="64"'), _utf16('NumberOfElements="9999999999"'))), "damaged"
    ),
    "steps of LIF": Attack(_changed(_lif, (_utf16('BytesInc="64"'), _utf16('BytesInc="99"'))), "damaged"),
    "XML of LIF": Attack(
        lambda path: path.write_bytes(struct.pack("<iiBi", 0x70, 0, 0x2A, _HUGE)), f"XML has {_HUGE} characters"
    ),
    "entities of LIF": Attack(_changed(_lif, (_utf16("<Children>"), _utf16("<!ENTITY>"))), "document type|damaged"),
    "chunk of ND2": Attack(_changed(_nd2, (struct.pack("<Q", 8 + GREY.nbytes), struct.pack("<Q", 2**62))), "damaged"),
    "frame of ND2 that unpacks": Attack(_nd2_bomb, ""),
    "sides of ND2": Attack(
        lambda path: _nd2(path, changes={"uiWidth": 30000, "uiWidthBytes": 30000, "uiHeight": 30000}), "px|damaged|MiB"
    ),
    "frames of ND2": Attack(lambda path: _nd2(path, changes={"uiSequenceCount": _HUGE}), "damaged"),
    "tables of ND2": Attack(_nd2_table(_deep()), "damaged"),
    "values of ND2": Attack(_nd2_table(bytes([11, 1]) + b"\0\0" + struct.pack("<IQ", _HUGE, 16)), "damaged"),
    "packed table of ND2": Attack(_nd2_table(bytes([76]) + bytes(11) + zlib.compress(bytes(50 << 20), 9)), "damaged"),
    "many values of ND2": Attack(
        _nd2_table(bytes([76]) + bytes(11) + zlib.compress(bytes([1, 1, 0, 0, 1]) * 600_000, 9)),
        "metadata have more than 150000 values",
    ),
    "files of OME-TIFF": Attack(
        lambda path: write_ome_files(path.parent, np.zeros((300, 1, 1, 2, 2), np.uint8), _names(path.name)),
        "OME-TIFF of 300 files, allowed are 256",
    ),
    "planes of an OME-TIFF of several files": Attack(
        lambda path: _several(path, (b'SizeT="2"', b'SizeT="9999999"')), "sizes are .* 9999999"
    ),
    "planes of a file of an OME-TIFF": Attack(
        lambda path: _several(path, (b'PlaneCount="1"', b'PlaneCount="2"'), (b'IFD="0"', b'IFD="9"')),
        "of file .*, which has 1",
    ),
    "array of NPZ": Attack(_npz(shape=(2000, 2000, 80), size=310 << 20), "MiB|damaged|wide|frames"),
    "array of NPZ that is shorter": Attack(_npz(shape=(2000, 2000), size=1 << 20), "damaged"),
    "header of NPZ": Attack(
        _npz(shape=(8, 8), size=0, header=b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 30) + bytes(1 << 20)),
        "header has 1073741824 bytes",
    ),
    "sides of JPEG XL": Attack(lambda path: path.write_bytes(_jxl_of(1 << 20)), "has [0-9]+ pixels, allowed are"),
    "sides of JPEG XR": Attack(lambda path: path.write_bytes(_jxr_of(1 << 20)), "has [0-9]+ pixels, allowed are"),
    "sides of WebP": Attack(lambda path: path.write_bytes(_webp_of(16_000)), "claims more|px high|damaged"),
    "images of a plate": Attack(_plate, "holds more than 10000 images", suffix=".ozx"),
    "wells of a plate": Attack(lambda path: _plate(path, 20_000), "names 20000 wells, allowed are 3456", suffix=".ozx"),
}
