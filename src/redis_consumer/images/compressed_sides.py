"""Reads the size of a compressed tile from its own header.

Decoders of JPEG and JPEG 2000 allocate memory for this size, whatever size the file around the tile gives.
"""

from __future__ import annotations

import struct

#: First bytes of a JPEG 2000 codestream, which boxes may precede.
_CODESTREAM = b"\xff\x4f\xff\x51"
#: Markers of JPEG that begin a frame.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


#: Scans of a JPEG; a progressive one has about ten, and as many for each preview in it.
MAX_SCANS = 200

#: TIFF's codes of JPEG and JPEG 2000, whose data say their sides by themselves.
OWN_SIDES = frozenset({6, 7, 33003, 33005, 34712})
#: An uncompressed white preview has fewer.
MAX_FILL_BYTES = 1 << 20
_FILL = b"\xff" * 64


def check_segment(data: bytes, most: int, index: int) -> None:
    """Refuse a tile or strip of a TIFF that has more samples than the file says.

    Args:
        data: JPEG or JPEG 2000, see `OWN_SIDES`.
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
    """Return the number of samples of a JPEG or JPEG 2000, 0 if its header isn't found.

    Raises:
        struct.error: it is cut off.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    at = data.find(_CODESTREAM)
    if at < 0:
        return 0
    right, below, left, top = struct.unpack_from(">4I", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    return int(right - left) * int(below - top) * int(components)


def _jpeg(data: bytes) -> int:
    at = 2
    while at + 4 <= len(data):
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if data[at] != 0xFF or marker == 0xFF or length < 2:
            at += 1
        elif marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            return int(height) * int(width) * int(components)
        else:
            at += 2 + length
    return 0
