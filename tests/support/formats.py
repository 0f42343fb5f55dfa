"""A small file of every kind that docs/formats names, and the result of its job."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as Pillow

from support import ome_zarr, vendors
from support.ome_files import write_ome_files

Array = npt.NDArray[Any]

#: Grey values that every format and codec holds, (y, x): no more than 251.
GREY = (np.arange(48 * 64).reshape(48, 64) * 7 % 251).astype(np.uint8)
BLACK_AND_WHITE = GREY > 125
SMOOTH = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """One kind of file.

    Attributes:
        write: makes it at a path.
        pixels: grey values that are read, (y, x), the first of several channels; None for a file that is refused.
        reason: pattern of the reason, for a file that is refused.
        tolerance: of the values of a lossy format.
        suffix: of the file's name.
    """

    write: Callable[[Path], object]
    pixels: Array | None = None
    reason: str = ""
    tolerance: int = 0
    suffix: str = ""


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _tiff(array: Array = GREY, **options: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def _picture(kind: str, array: Array = GREY, **options: Any) -> Callable[[Path], object]:
    return lambda path: Pillow.fromarray(array).save(path, kind, **options)


def _fax(compression: str) -> Case:
    return Case(_picture("TIFF", BLACK_AND_WHITE, compression=compression), BLACK_AND_WHITE)


def _colour(grey: Array) -> Array:
    return np.stack([grey] * 3, -1)


def _old_jpeg() -> Callable[[Path], object]:
    """A TIFF of 1992: its only strip is a whole JPEG, to which a tag points."""
    data = bytes(imagecodecs.jpeg8_encode(SMOOTH, level=95))
    values = {256: 64, 257: 48, 258: 8, 259: 6, 262: 1, 273: 8, 277: 1, 278: 48, 279: len(data), 512: 1, 513: 8,
              514: len(data)}  # fmt: skip
    body = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in values.items())
    return _bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(values)) + body + bytes(4))


def _zarr(version: str, *, is_zipped: bool = False) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        shape = (1, 1, 1, *GREY.shape) if version < "0.4" else GREY.shape
        axes = "tczyx"[-len(shape) :]
        folder = path.with_suffix(".folder") if is_zipped else path
        ome_zarr.write(folder, GREY.reshape(shape), axes, version=version)
        if version < "0.4":  # older ones name axes by texts, or not at all
            attributes = json.loads((folder / ".zattrs").read_text())
            attributes["multiscales"][0]["axes"] = list(axes) if version == "0.3" else None
            ome_zarr.write_json(folder / ".zattrs", attributes)
        if is_zipped:
            ome_zarr.zipped(folder, path)

    return write


def _npz(**arrays: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    return write


def _zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"text")
    return buffer.getvalue()


def _two_files(path: Path) -> None:
    image = np.stack([GREY, GREY // 2])[np.newaxis, np.newaxis]
    write_ome_files(path.parent, image, lambda t, z, c: path.name if c == 0 else "other.ome.tif")


FILES: dict[str, Case] = {
    "TIFF, BigTIFF": Case(_tiff(bigtiff=True), GREY, suffix=".tif"),
    "ImageJ TIFF": Case(_tiff(imagej=True), GREY, suffix=".tif"),
    "OME-TIFF": Case(_tiff(ome=True), GREY, suffix=".ome.tif"),
    "OME-TIFF of several files": Case(_two_files, GREY, suffix=".ome.tif"),
    "OME-Zarr 0.1": Case(_zarr("0.1"), GREY, suffix=".zarr"),
    "OME-Zarr 0.2": Case(_zarr("0.2"), GREY, suffix=".zarr"),
    "OME-Zarr 0.3": Case(_zarr("0.3"), GREY, suffix=".zarr"),
    "OME-Zarr 0.4": Case(_zarr("0.4"), GREY, suffix=".zarr"),
    "OME-Zarr 0.5": Case(_zarr("0.5"), GREY, suffix=".zarr"),
    "OME-Zarr in one file": Case(_zarr("0.4", is_zipped=True), GREY, suffix=".ozx"),
    "Zeiss CZI": Case(lambda path: vendors.write_czi(path, [({}, GREY)]), GREY, suffix=".czi"),
    "Nikon ND2": Case(lambda path: vendors.write_nd2(path, [GREY[..., None]]), GREY, suffix=".nd2"),
    "Leica LIF": Case(lambda path: vendors.write_lif(path, {"Series001": ("YX", GREY)}), GREY, suffix=".lif"),
    "NPY": Case(lambda path: np.save(path, GREY), GREY, suffix=".npy"),
    "NPZ": Case(_npz(X=GREY, y=GREY), GREY, suffix=".npz"),
    "PNG": Case(_picture("PNG"), GREY, suffix=".png"),
    "JPEG": Case(_picture("JPEG", SMOOTH, quality=95), SMOOTH, tolerance=3, suffix=".jpg"),
    "JPEG 2000": Case(_picture("JPEG2000"), GREY, suffix=".jp2"),
    "JPEG XL": Case(_bytes(bytes(imagecodecs.jpegxl_encode(GREY, lossless=True))), GREY, suffix=".jxl"),
    "JPEG XR": Case(_bytes(bytes(imagecodecs.jpegxr_encode(GREY, level=1.0))), GREY, suffix=".jxr"),
    "WebP": Case(_picture("WEBP", _colour(GREY), lossless=True), GREY, suffix=".webp"),
    "AVIF": Case(_picture("AVIF", _colour(SMOOTH), quality=95), SMOOTH, tolerance=6, suffix=".avif"),
    "BMP": Case(_picture("BMP"), GREY, suffix=".bmp"),
    "GIF": Case(_picture("GIF"), GREY, suffix=".gif"),
    "PBM, PGM, PPM": Case(_picture("PPM"), GREY, suffix=".pgm"),
}
COMPRESSIONS: dict[str, Case] = {
    "none": Case(_tiff(), GREY),
    "LZW": Case(_tiff(compression="lzw"), GREY),
    "Deflate": Case(_tiff(compression="zlib"), GREY),
    "PackBits": Case(_tiff(compression="packbits"), GREY),
    "LZMA": Case(_tiff(compression="lzma"), GREY),
    "Zstandard": Case(_tiff(compression="zstd"), GREY),
    "JPEG": Case(_tiff(SMOOTH, compression="jpeg"), SMOOTH, tolerance=4),
    "JPEG of 1992": Case(_old_jpeg(), SMOOTH, tolerance=4),
    "JPEG 2000": Case(_tiff(compression="jpeg2000"), GREY),
    "JPEG XL": Case(_tiff(compression="jpegxl"), GREY),
    "JPEG XR": Case(_tiff(compression="jpegxr"), GREY),
    "PNG": Case(_tiff(compression="png"), GREY),
    "WebP": Case(_tiff(_colour(GREY), photometric="rgb", compression="webp", compressionargs={"lossless": True}), GREY),
    "LERC": Case(_tiff(compression="lerc"), GREY),
    "CCITT RLE": _fax("tiff_ccitt"),
    "CCITT G3": _fax("group3"),
    "CCITT G4": _fax("group4"),
}


def _other(mark: bytes, at: int = 0) -> Callable[[Path], object]:
    return _bytes((bytes(at) + mark).ljust(600, b"\1"))


def _part_of_ome(path: Path) -> None:
    image = np.stack([GREY, GREY])[np.newaxis, np.newaxis]
    _, other = write_ome_files(path.parent, image, lambda t, z, c: path.name if c == 0 else "c1.tif")
    other.unlink()


REFUSED: dict[str, Case] = {
    "HDF5 (Imaris IMS, BigDataViewer)": Case(_other(b"\x89HDF\r\n\x1a\n"), reason="an HDF5 file .*export it as OME"),
    "OLE (Olympus OIB, Zeiss ZVI)": Case(_other(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), reason="an OLE file .*OME-TIFF"),
    "Olympus OIR": Case(_other(b"OLYMPUSRAWFORMAT"), reason="an Olympus OIR.*OME-TIFF"),
    "Olympus ETS (the pixels of a VSI)": Case(_other(b"SIS\0"), reason="an Olympus ETS.*OME-TIFF"),
    "DeltaVision DV": Case(_other(b"\xa0\xc0", 96), reason="a DeltaVision DV.*OME-TIFF"),
    "ICS": Case(_other(b"ics_version\t2.0"), reason="an ICS.*OME-TIFF"),
    "NRRD": Case(_other(b"NRRD0004"), reason="an NRRD.*OME-TIFF"),
    "NIfTI": Case(_other(b"n+1\0", 344), reason="a NIfTI.*OME-TIFF"),
    "DICOM": Case(_other(b"DICM", 128), reason="a DICOM.*OME-TIFF"),
    "MRC": Case(_other(b"MAP ", 208), reason="an MRC.*OME-TIFF"),
    "FITS": Case(_other(b"SIMPLE  =   T"), reason="a FITS.*OME-TIFF"),
    "MATLAB": Case(_other(b"MATLAB 5.0 MAT-file"), reason="a MATLAB file.*OME-TIFF"),
    "Photoshop": Case(_other(b"8BPS"), reason="a Photoshop file.*TIFF"),
    "OpenEXR, Radiance HDR": Case(_other(b"v/1\1"), reason="an OpenEXR.*TIFF"),
    "PAM, PFM": Case(_other(b"P7\nWIDTH 8\n"), reason="a PAM picture.*TIFF"),
    "PDF, PostScript": Case(_other(b"%PDF-1.7"), reason="a PDF.*TIFF"),
    "HEIC, HEIF": Case(_other(b"\0\0\0\x18ftypheic"), reason="an HEIC photograph.*TIFF"),
    "JPEG-LS": Case(_bytes(bytes(imagecodecs.jpegls_encode(GREY))), reason="a JPEG-LS picture.*TIFF"),
    "MP4, MOV, AVI, Matroska, WebM": Case(_other(b"\0\0\0\x18ftypisom"), reason="a video .*frames as a TIFF"),
    "Parquet": Case(_other(b"PAR1"), reason="a Parquet table.*upload the image"),
    "Pickle": Case(_other(b"\x80\x04\x95"), reason="a Python pickle, which is never loaded.*numpy.save"),
    "NPY of Python objects": Case(
        lambda path: np.save(path, np.array([{1: 2}], dtype=object), allow_pickle=True),
        reason="Python objects.*numbers",
        suffix=".npy",
    ),
    "NPZ of several arrays without X": Case(_npz(a=GREY, b=GREY), reason="2 arrays that can be images .*name X"),
    "TIFF of YCbCr colours with subsampling and without JPEG": Case(
        lambda path: _subsampled(path), reason="YCbCr colours with 2 x 2 subsampling.*RGB"
    ),
    "OME-TIFF of several files, of which some are missing": Case(
        _part_of_ome, reason=r"one of the 2 files of an OME-TIFF, of which 1 are missing \(c1.tif\).*one OME-TIFF file"
    ),
    "TIFF with another compression": Case(
        lambda path: _recompressed(path, 34661), reason=r"compression 34661 \(JBIG\).*Deflate"
    ),
    "Git LFS pointer": Case(_other(b"version https://git-lfs.github.com/spec/v1"), reason="Git LFS.*git lfs pull"),
    "Web page": Case(_other(b"<!DOCTYPE html>"), reason="a web page.*download the image again"),
    "Zip archive": Case(_bytes(_zip_of("a.txt")), reason=r"a zip archive.*ends in \.zip"),
    "7z, rar, xz, bzip2, zstd, lz4, gzip, tar": Case(_other(b"7z\xbc\xaf\x27\x1c"), reason="a 7z file.*zip, tar or"),
    "Empty file": Case(_bytes(b""), reason="empty; upload it again"),
    "Anything else": Case(_bytes(b"Dear colleague,"), reason="a known format; save it as"),
}


def _subsampled(path: Path) -> None:
    from support.attacks import plane, tiff

    tags = {each[0]: each for each in plane(compression=8)}
    tags |= {262: (262, 3, 1, 6), 277: (277, 3, 1, 3), 530: (530, 3, 2, 2 | 2 << 16)}
    path.write_bytes(tiff(list(tags.values()), pixels=bytes(2000)))


def _recompressed(path: Path, code: int) -> None:
    from support.attacks import plane, tiff

    path.write_bytes(tiff(plane(compression=code), pixels=bytes(2000)))
