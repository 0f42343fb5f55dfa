"""Detects the format of a file from its content, and names the formats that can't be read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis_consumer.errors import ConsumerError, InvalidImage
from redis_consumer.job import PACKED_HEAD_BYTES, READABLE_ARCHIVES, packed_as

#: First bytes of each format that is read. Suffixes aren't used.
MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"ZISRAWFILE", "CZI"),
    (b"\xda\xce\xbe\x0a", "ND2"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    *((b"P" + digit, "PGM or PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
)
FORMATS = "TIFF, CZI, ND2, LIF, PNG, JPEG, JPEG 2000, JPEG XL, JPEG XR, WebP, AVIF, BMP, GIF, PGM, PPM, NPY or NPZ"

_EXPORT = "export it as OME-TIFF"
_SAVE = "save it as TIFF or PNG"
_FRAMES = "save its frames as a TIFF"
#: Formats that aren't read: where their mark is, the mark, their name and what to do.
_OTHERS = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Imaris IMS, BigDataViewer or similar)", _EXPORT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file (Olympus OIB, Zeiss ZVI or similar)", _EXPORT),
    (0, b"OLYMPUSRAWFORMAT", "an Olympus OIR", _EXPORT),
    (0, b"SIS\0", "an Olympus ETS, the pixels of a VSI", _EXPORT),
    (0, b"ics_version", "an ICS", _EXPORT),
    (0, b"NRRD", "an NRRD", _EXPORT),
    (344, b"n+1\0", "a NIfTI", _EXPORT),
    (128, b"DICM", "a DICOM", _EXPORT),
    (208, b"MAP ", "an MRC", _EXPORT),
    (0, b"SIMPLE  =", "a FITS", _EXPORT),
    (0, b"MATLAB 5.0", "a MATLAB file", _EXPORT),
    (0, b"8BPS", "a Photoshop file", _SAVE),
    (0, b"v/1\x01", "an OpenEXR", _SAVE),
    (0, b"#?RADIANCE", "a Radiance HDR", _SAVE),
    (0, b"P7\n", "a PAM picture", _SAVE),
    (0, b"PF\n", "a PFM picture", _SAVE),
    (0, b"Pf\n", "a PFM picture", _SAVE),
    (0, b"%PDF", "a PDF", "export its image as TIFF"),
    (0, b"%!PS", "a PostScript file", "export its image as TIFF"),
    (0, b"RIFF....AVI ", "an AVI video", _FRAMES),
    (4, b"ftyphei", "an HEIC photograph", _SAVE),
    (4, b"ftypmif1", "an HEIF photograph", _SAVE),
    (4, b"ftypmsf1", "an HEIF photograph", _SAVE),
    (4, b"ftyp", "a video (MP4, MOV or similar)", _FRAMES),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", _FRAMES),
    (0, b"PAR1", "a Parquet table", "upload the image"),
    (0, b"\x80\x03", "a Python pickle, which is never loaded", "save the array by numpy.save"),
    (0, b"\x80\x04\x95", "a Python pickle, which is never loaded", "save the array by numpy.save"),
    (0, b"\x80\x05\x95", "a Python pickle, which is never loaded", "save the array by numpy.save"),
    (0, b"version https://git-lfs", "a pointer of Git LFS instead of a file", "fetch the file by git lfs pull"),
    (0, b"<!DOCTYPE html", "a web page, perhaps of a failed download", "download the image again"),
    (0, b"<html", "a web page, perhaps of a failed download", "download the image again"),
    (96, b"\xa0\xc0", "a DeltaVision DV", _EXPORT),
)  # fmt: skip
_HEAD_BYTES = 512
_UNSUPPORTED = re.compile(r"unsupported|not (yet )?supported|not implemented", re.IGNORECASE)


def kind_of(path: Path, name: str) -> str:
    """Return the format of a file, as in `MAGIC`.

    Args:
        path: the local file.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: it is empty, or none of the formats; the message names the format if it is known.
        OSError: the local file can't be opened.
    """
    head = _head(path)
    kind = kind_of_head(head)
    if not kind:
        raise InvalidImage(f"{name}: {_fault(head)}")
    return kind


def why_no_image(path: Path) -> str:
    """Return why a file is no image that can be read, by its content; empty if it is one.

    Raises:
        OSError: the local file can't be opened.
    """
    head = _head(path)
    return "" if kind_of_head(head) else _fault(head)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(max(PACKED_HEAD_BYTES, _HEAD_BYTES))


def _fault(head: bytes) -> str:
    """What is wrong with a file of these first bytes, and what to do."""
    if not head:
        return "the file is empty; upload it again"
    for at, mark, what, advice in _OTHERS:
        if re.match(re.escape(mark).replace(rb"\.", b"."), head[at : at + len(mark)], re.DOTALL):
            return f"is {what}, which can't be read; {advice}"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, not an image; give it a name that ends in .zip"
    packed = packed_as(head)
    if packed:
        return f"is a {packed} file, not an image; upload the image, or several packed as {READABLE_ARCHIVES}"
    return f"isn't an image of a known format; save it as {FORMATS}"


def kind_of_head(head: bytes) -> str:
    """Return the format that a file with these first bytes has, as in `MAGIC`; empty for one that isn't read."""
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if head[:4] == b"\x70\0\0\0" and head[8:9] == b"\x2a":
        return "LIF"
    # The first member of a zip archive is an array: its name stands behind 30 bytes, its length at 26.
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return "NPZ" if head.startswith(b"PK\x03\x04") and first.endswith(b".npy") and b"/" not in first else ""


@contextmanager
def readable(kind: str, name: str) -> Iterator[None]:
    """Convert every error of readers for damaged files to one sentence.

    Args:
        kind: the format of the file.
        name: the user's name for the file.

    Raises:
        InvalidImage: the reader raised anything but an error of this package or of memory.
    """
    # For damaged files, readers raise many kinds of errors (KeyError, struct.error, RecursionError, errors of
    # codecs), and their texts hold machine paths; so every error becomes one sentence, cause chained.
    # Their warnings say less than our checks do, and must not become errors where a user wants that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ConsumerError, MemoryError):
            raise
        except FileNotFoundError:
            raise
        except Exception as error:
            if isinstance(error, NotImplementedError) or _UNSUPPORTED.search(str(error)):
                raise InvalidImage(
                    f"{name}: is a variant of {kind} that can't be read; save it as TIFF without compression"
                ) from error
            raise InvalidImage(
                f"{name}: looks like {kind} but is damaged or cut off; export it again and upload the whole file"
            ) from error
