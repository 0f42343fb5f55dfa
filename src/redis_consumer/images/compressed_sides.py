"""Reads the size of a compressed picture from its own header.

Decoders allocate memory for this size, whatever size the file around the picture gives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

#: First bytes of a JPEG 2000 codestream, which boxes may precede.
_CODESTREAM = b"\xff\x4f\xff\x51"
#: Markers of JPEG that begin a frame; the last one is of JPEG-LS.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


#: Scans of a JPEG; a progressive one has about ten, and as many for each preview in it.
MAX_SCANS = 200

#: TIFF's codes of pictures whose data say their sides by themselves.
OWN_SIDES = frozenset(
    {6, 7, 22610, 33003, 33004, 33005, 33007, 34712, 34887, 34892, 34927, 34933, 34934, 50001, 50002, 52546}
)
#: An uncompressed white preview has fewer.
MAX_FILL_BYTES = 1 << 20
_FILL = b"\xff" * 64


def check_segment(data: bytes, most: int, index: int) -> None:
    """Refuse a tile or strip of a TIFF that has more samples than the file says.

    Args:
        data: a picture, see `OWN_SIDES`.
        most: number of samples that the file says.
        index: number of the segment, for messages.

    Raises:
        ValueError: it has more samples.
        struct.error: it is cut off.
    """
    if scans(data) > MAX_SCANS:
        raise ValueError(f"segment {index} has too many scans")
    if fill_bytes(data) > MAX_FILL_BYTES:
        raise ValueError(f"segment {index} has too many fill bytes")
    if decoded_samples(data) > most:
        raise ValueError(f"segment {index} is larger than the file says")


def scans(data: bytes) -> int:
    """Scans of a JPEG, at most: a decoder goes through all pixels in each, however short it is."""
    return data.count(b"\xff\xda") if data[:2] == b"\xff\xd8" else 0


def fill_bytes(data: bytes) -> int:
    """Bytes that only fill the space between two segments of a JPEG, at least. A decoder reads them one by one."""
    return data.count(_FILL) * len(_FILL) if data[:2] == b"\xff\xd8" else 0


def decoded_samples(data: bytes) -> int:
    """Return the number of samples of a picture, 0 if its header isn't found.

    JPEG, JPEG 2000, PNG and LERC say how many samples a pixel has. For WebP, JPEG XL and JPEG XR it is the number of
    pixels.

    Raises:
        struct.error: it is cut off.
        ValueError: its header is malformed.
    """
    for magic, count in _COUNTS:
        if data.startswith(magic):
            return count(data)
    return _jpeg_2000(data)


def _jpeg_2000(data: bytes) -> int:
    at = data.find(_CODESTREAM)
    if at < 0:
        return 0
    right, below, left, top = struct.unpack_from(">4I", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    return int(right - left) * int(below - top) * int(components)


def _png(data: bytes) -> int:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    return int(width) * int(height) * {2: 3, 4: 2, 6: 4}.get(colour, 1)


def _webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return int(width * height)


def _lerc(data: bytes) -> int:
    """All bands of a LERC of version 2 to 6, which follow one another."""
    samples = at = 0
    while data[at : at + 6] == _LERC:
        (version,) = struct.unpack_from("<i", data, at + 6)
        has_depth = version >= 4
        numbers = struct.unpack_from("<6i" if has_depth else "<5i", data, at + (14 if version >= 3 else 10))
        height, width, depth, size = *numbers[:2], numbers[2] if has_depth else 1, numbers[-1]
        if min(version, height, width, depth, size) < 1:
            raise ValueError("a band of LERC has no size")
        samples, at = samples + height * width * depth, at + size
    return samples


def _first_lerc(data: bytes) -> int:
    raise ValueError(f"a LERC of the first version, which begins with {data[:9]!r}")


def _jpeg_xr(data: bytes) -> int:
    """The larger of the sizes of its container and of its codestream."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    sides = {0xBC80: 0, 0xBC81: 0}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, at)
        if tag in sides:
            (sides[tag],) = struct.unpack_from("<H" if kind == 3 else "<I", data, at + 8)
    at = data.find(b"WMPHOTO\0")
    if at < 0:
        raise ValueError("a JPEG XR has no codestream")
    width, height = struct.unpack_from(">HH" if data[at + 10] & 0x80 else ">II", data, at + 12)
    return int(max(sides[0xBC80] * sides[0xBC81], (width + 1) * (height + 1)))


def _jpeg_xl_box(data: bytes) -> int:
    """The codestream in the boxes of a JPEG XL file."""
    at = 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, head = data[at + 4 : at + 8], 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        if kind in (b"jxlc", b"jxlp"):
            return _jpeg_xl(data[at + head + (4 if kind == b"jxlp" else 0) :][:64])
        if length < head:
            break
        at += length
    raise ValueError("a JPEG XL has no codestream")


def _jpeg_xl(data: bytes) -> int:
    """The size in the first bits of a codestream, least significant bit first (ISO/IEC 18181-1, SizeHeader)."""
    if data[:2] != _JPEG_XL:
        raise ValueError("a JPEG XL has no codestream")
    bits, at = int.from_bytes(data[2:18], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> at - count & (1 << count) - 1

    def side() -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    is_small = bool(take(1))
    height = side()
    ratio = take(3)
    above, below = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    width = height * above // below if ratio else side()
    return height * width


def jpeg_process(data: bytes) -> tuple[int, int]:
    """Return the marker of the frame of a JPEG, which says its process, and its bits; zeros if it has no frame.

    Raises:
        struct.error: it is cut off.
    """
    marker, at = _jpeg_frame(data)
    return (marker, data[at + 4]) if marker else (0, 0)


def _jpeg(data: bytes) -> int:
    marker, at = _jpeg_frame(data)
    height, width, components = struct.unpack_from(">HHB", data, at + 5) if marker else (0, 0, 0)
    return int(height) * int(width) * int(components)


def _jpeg_frame(data: bytes) -> tuple[int, int]:
    """The marker of the frame, and where it is; zeros if there is none."""
    at = 2
    while at + 4 <= len(data):
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if data[at] != 0xFF or marker == 0xFF or length < 2:
            at += 1
        elif marker in _FRAMES:
            struct.unpack_from(">BHHB", data, at + 4)
            return marker, at
        else:
            at += 2 + length
    return 0, 0


_JPEG_XL = b"\xff\x0a"
_LERC = b"Lerc2 "
#: First bytes of a picture, and what counts its samples.
_COUNTS: tuple[tuple[bytes, Callable[[bytes], int]], ...] = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (_LERC, _lerc),
    (b"CntZImage ", _first_lerc),
    (b"II\xbc\x01", _jpeg_xr),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _jpeg_xl_box),
    (_JPEG_XL, _jpeg_xl),
)
