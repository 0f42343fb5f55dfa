"""Reads TIFF files: plain ones, and those of ImageJ, OME and others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel, channel_named
from redis_consumer.images.compressed_sides import OWN_SIDES, check_segment
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Array, Source, square_um
from redis_consumer.images.shown_values import ShownSamples, of_page
from redis_consumer.images.tiff_chain import MAX_PLANES_A_DIRECTORY, Chain, check_metadata, cut_off, read_chain

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

#: Codes of the compressions that are read. Their decoders get a limit of bytes to write or the sides of the image, or
#: (JPEG) write what a header of 16-bit sides says, or have a header that `check_segment` reads before.
COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT G3",
    4: "CCITT G4",
    5: "LZW",
    6: "JPEG (old)",
    7: "JPEG",
    8: "Deflate",
    22610: "JPEG XR",
    32773: "PackBits",
    32946: "Deflate (old)",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "JPEG",
    34925: "LZMA",
    34926: "Zstandard",
    34927: "WebP",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
#: Codes of some that are not.
_OTHER_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    262: "Kodak DCR",
    32767: "Sony ARW",
    32766: "NeXT",
    32771: "CCITT RLE of 16-bit words",
    32809: "ThunderScan",
    32909: "PixarLog",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv of 24 bits",
    34713: "Nikon NEF",
    34715: "JBIG2",
    48124: "Jetraw",
    50013: "Pixtiff",
    65000: "EER",
    65001: "EER",
    65002: "EER",
}
_SAMPLE_FORMAT, _LERC_PARAMETERS = 339, 50674
_LERC = 34887
_JPEG = frozenset({6, 7, 33007, 34892})
#: Predictors that are undone: none, differences of integers and of floats.
_PREDICTORS = frozenset({1, 2, 3, 34892, 34893, 34894, 34895})
MICROMETRES = {
    "nm": 1e-3,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "\\u00b5m": 1.0,  # as ImageJ escapes it
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
    "m": 1e6,
}
SECONDS = {"ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0, "h": 3600.0}
#: Resolutions coarser than this are a program's default for print (72 dpi are 353 um), not a measurement.
MAX_PLAUSIBLE_UM = 20.0
_PLACE = re.compile(r"^(\s*[czt]:\d+/\d+)+(\s*-\s*)?", re.ASCII)
_ORIENTATION, _MOST_ORIENTATIONS = 274, 8
#: Formats of vendors whose own metadata tifffile would read before anything of it could be checked. Their pages are
#: read as those of a plain TIFF.
_PLAIN = ("mmstack", "ndtiff", "lsm", "sis", "svs", "scn", "ndpi", "bif", "avs", "eer", "philips", "scanimage")
#: Those whose metadata are checked.
_CHECKED = ("ome", "imagej", "shaped", "stk", "fluoview", "nih", "mdgel")


@contextmanager
def open_tiff(path: Path, name: str, field: str = "") -> Iterator[Source]:
    """Read the header of a TIFF file: the first and largest image in it, with the axes its metadata names.

    Its values are those that a viewer shows, see `redis_consumer.images.shown_values`.

    Raises:
        InvalidImage: it is cut off, holds several images, or an unknown compression.
        Exception: whatever tifffile raises for a damaged file.
    """
    with open_stored(path, name, field) as (source, shown):
        yield shown.source(source)


@contextmanager
def open_stored(
    path: Path, name: str, field: str = "", *, is_plain: bool = False
) -> Iterator[tuple[Source, ShownSamples]]:
    """Read the header of a TIFF file as `open_tiff`, with the samples as they are stored, and how they are shown.

    Args:
        path: the local file.
        name: the user's name for the file, for messages.
        field: which of several images in the file; empty for the only one.
        is_plain: whether its metadata are not read, only its pages.
    """
    chain = read_chain(path, name)
    if not is_plain:
        check_metadata(chain, name)
    with open_library(path, is_plain=is_plain) as tif:
        _check_imagej(tif, chain, name)
        series = choose_series(tif, name, field)
        page = series.keyframe
        _check_supported(page, name)
        _check_planes(series, chain, name)
        _check_complete(tif, series, name)
        pixel_yx_um = _pixel_yx_um(tif, page)
        source = Source(
            shape=tuple(series.shape),
            axes=series.axes,
            dtype=np.dtype(series.dtype),
            decode=lambda: _decode(tif, series),
            pixel_size_um=square_um(pixel_yx_um),
            pixel_yx_um=pixel_yx_um,
            decoder_bytes=_tile_bytes(page),
            stored_bytes=_stored_bytes(tif, series),
            channels=_channels(tif, series),
            notes=_notes(page),
            orientation=_orientation(page),
            **_steps(tif),
        )
        yield source, of_page(page, source.dtype, has_lut=tif.is_imagej)


def open_library(path: Path, *, is_plain: bool = False) -> TiffFile:
    """Open a TIFF file with tifffile, so that it reads no other files and no metadata that weren't checked."""
    from tifffile import TiffFile

    # An OME file can name other files as its parts. Only this file is read.
    flags: dict[str, Any] = {f"is_{kind}": False for kind in (*_PLAIN, *(_CHECKED if is_plain else ()))}
    return TiffFile(path, _multifile=False, **flags)


def _check_imagej(tif: TiffFile, chain: Chain, name: str) -> None:
    """Refuse metadata of ImageJ that name more planes than the file has directories, or bytes."""
    if not tif.is_imagej:
        return
    named = tif.imagej_metadata or {}
    fields = {field: named.get(field, 1) for field in ("frames", "slices", "channels")}
    for field, count in fields.items():
        if not isinstance(count, int) or count < 1:
            raise InvalidImage(
                f"{name}: its ImageJ metadata are wrong, {field} is {str(count)[:30]!r}; save it again by ImageJ"
            )
    page = tif.pages.first
    planes = prod(fields.values()) // page.samplesperpixel
    if planes > chain.directories and (not page.is_final or planes * page.nbytes > tif.filehandle.size):
        listed = ", ".join(f"{field}={count}" for field, count in fields.items() if count > 1)
        raise InvalidImage(
            f"{name}: its ImageJ metadata name {planes} planes ({listed}), but the file holds {chain.directories}; "
            "upload the whole file, or save it again by ImageJ"
        )


def _check_supported(page: TiffPage, name: str) -> None:
    """Refuse what no decoder is there for, by its name; a decoder would say that the file is damaged."""
    if page.compression not in COMPRESSIONS:
        code = int(page.compression)
        known = _OTHER_COMPRESSIONS.get(code)
        raise InvalidImage(
            f"{name}: TIFF compression {code}{f' ({known})' if known else ''} can't be read; "
            "save it uncompressed or with LZW or Deflate"
        )
    packed_inside = page.compression == _LERC and (page.tags.valueof(_LERC_PARAMETERS) or (0, 0))[1]
    if packed_inside:
        raise _not_read(name, f"TIFF compression LERC that is packed once more (method {packed_inside})")
    _check_samples(page, name)


def _check_samples(page: TiffPage, name: str) -> None:
    if page.predictor not in _PREDICTORS and page.compression not in OWN_SIDES:
        raise _not_read(name, f"TIFF predictor {page.predictor}")
    formats = page.tags.valueof(_SAMPLE_FORMAT)
    if isinstance(formats, tuple) and len(set(formats)) > 1:
        raise _not_read(name, f"TIFF of samples of different kinds (SampleFormat {formats})")
    if page.dtype is None:
        kind = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}.get(page.sampleformat, "")
        raise _not_read(name, f"TIFF of {page.bitspersample}-bit {kind} samples".replace("  ", " "))
    if page.is_subsampled and (page.compression not in _JPEG or page.planarconfig == 2):
        sides = " x ".join(map(str, page.subsampling or ()))
        raise _not_read(name, f"TIFF of YCbCr colours with {sides} subsampling and without JPEG")


def _not_read(name: str, what: str) -> InvalidImage:
    return InvalidImage(
        f"{name}: a {what} can't be read; save it as grey or RGB with 8, 16 or 32 bits, uncompressed or with Deflate"
    )


def _check_planes(series: TiffPageSeries, chain: Chain, name: str) -> None:
    planes, most = prod(series.shape) // max(prod(series.keyframe.shape), 1), MAX_PLANES_A_DIRECTORY * chain.directories
    if series.dataoffset is None and planes > most:
        raise InvalidImage(
            f"{name}: its metadata name {planes} planes, but the file has {chain.directories} directories, "
            f"allowed are {most} planes; export it again"
        )


def _decode(tif: TiffFile, series: TiffPageSeries) -> Array:
    """All pixels, once every segment that says its own sides is known to be no larger than the file says."""
    page = series.keyframe
    if page.compression in OWN_SIDES:
        strip = (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        sides = (page.tilelength, page.tilewidth) if page.is_tiled else strip
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        most = prod(sides) * max(page.tiledepth, 1) * samples
        for each in series.pages:
            segments = zip(each.dataoffsets, each.databytecounts, strict=False) if each is not None else ()
            for index, (offset, count) in enumerate(segments):
                tif.filehandle.seek(offset)
                check_segment(tif.filehandle.read(count), most, index)
    return np.ascontiguousarray(series.asarray())


def choose_series(tif: TiffFile, name: str, field: str) -> TiffPageSeries:
    """Return the image of a file, or the one of several that a job names by its number."""
    first = tif.series[0]
    # Smaller ones are previews and labels; an equal or larger one is another field of view.
    images = [series for series in tif.series if prod(series.shape) >= prod(first.shape)]
    return images[choose([str(number) for number in range(len(images))], field, name)]


def _check_complete(tif: TiffFile, series: TiffPageSeries, name: str) -> None:
    # tifffile silently fills pixels behind the end of a file with zeros.
    file_bytes = tif.filehandle.size
    if series.dataoffset is not None:
        complete = series.dataoffset + series.nbytes <= file_bytes
    else:
        complete = all(_is_complete(page, series.keyframe, file_bytes) for page in series.pages if page is not None)
    if not complete:
        raise cut_off(name)


def _is_complete(page: TiffPage | TiffFrame, keyframe: TiffPage, file_bytes: int) -> bool:
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) < prod(keyframe.chunked):
        return False
    # A tile of no bytes is a sparse one, all background; a strip of none is missing.
    least = 0 if keyframe.is_tiled else 1
    return all(count >= least and offset + count <= file_bytes for offset, count in segments)


def _stored_bytes(tif: TiffFile, series: TiffPageSeries) -> int:
    """Return the number of bytes in the file that hold pixels. Bytes that several tiles or strips share count once."""
    if series.dataoffset is not None:
        return int(series.nbytes)
    segments: dict[int, int] = {}
    for page in series.pages:
        if page is not None:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                segments[offset] = max(count, segments.get(offset, 0))
    return min(sum(segments.values()), int(tif.filehandle.size))


def _tile_bytes(page: TiffPage) -> int:
    if page.tile is None or page.dtype is None:
        return 0
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    return prod(page.chunked) * prod(page.tile) * samples * page.dtype.itemsize


def _channels(tif: TiffFile, series: TiffPageSeries) -> tuple[Channel, ...]:
    """What OME-XML or ImageJ's labels say of the channels; nothing if they don't."""
    if tif.is_ome and tif.ome_metadata:
        return ome_channels(tif.ome_metadata)
    count = series.shape[series.axes.index("C")] if "C" in series.axes else 0
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    if not count or not isinstance(labels, (list, tuple)) or len(labels) < count:
        return ()
    # ImageJ puts "c:1/3 t:1/9 - " before the label of a plane.
    return tuple(channel_named(_PLACE.sub("", str(label)).strip()) for label in labels[:count])


def ome_channels(xml: str) -> tuple[Channel, ...]:
    """Return what OME-XML says of the channels of its first image; nothing if it is malformed.

    Args:
        xml: checked by `redis_consumer.images.tiff_metadata.check_metadata`.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - it has no entities, and no more elements than allowed
    except ElementTree.ParseError:
        return ()
    image = next((each for each in root if str(each.tag).endswith("}Image")), None)
    pixels = next((each for each in image or () if str(each.tag).endswith("}Pixels")), None)
    found = [each for each in pixels or () if str(each.tag).endswith("}Channel")]
    return tuple(
        channel_named(each.get("Name", ""), *(each.get(field, "") for field in ("ContrastMethod", "IlluminationType")))
        for each in found
    )


def _orientation(page: TiffPage) -> int:
    orientation = page.tags.valueof(_ORIENTATION, default=1)
    return int(orientation) if isinstance(orientation, int) and 1 <= orientation <= _MOST_ORIENTATIONS else 1


def _notes(page: TiffPage) -> tuple[str, ...]:
    orientation = _orientation(page)
    if orientation == 1:
        return ()
    return (
        f"orientation {orientation} of the file is not applied; rows and columns of the result are as stored, and its "
        "TIFFs have the same orientation",
    )


def _pixel_yx_um(tif: TiffFile, page: TiffPage) -> tuple[float, float] | None:
    if tif.is_ome and tif.ome_metadata:
        return known_sides(*(ome_size_um(tif.ome_metadata, axis) for axis in "YX"))
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit), "")
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", "")).lower()
    if unit not in MICROMETRES:
        return None
    sides = known_sides(*(_resolution_size(page, tag, MICROMETRES[unit]) for tag in ("YResolution", "XResolution")))
    return sides if sides is not None and (tif.is_imagej or max(sides) <= MAX_PLAUSIBLE_UM) else None


def _steps(tif: TiffFile) -> dict[str, Any]:
    """Return the distance of two planes, and the time between two frames, as far as the file says them."""
    if tif.is_ome and tif.ome_metadata:
        spacing, interval = ome_size_um(tif.ome_metadata, "Z"), ome_interval_s(tif.ome_metadata)
    else:
        named = (tif.imagej_metadata or {}) if tif.is_imagej else {}
        unit, times = str(named.get("unit", "")).lower(), str(named.get("tunit", "s")).lower()
        spacing = _product(named.get("spacing"), MICROMETRES.get(unit))
        interval = _product(named.get("finterval"), SECONDS.get(times))
    steps = {"spacing_um": spacing, "interval_s": interval}
    return {name: step for name, step in steps.items() if step is not None and 0 < step < float("inf")}


def _product(value: object, factor: float | None) -> float | None:
    return float(value) * factor if isinstance(value, int | float) and factor is not None else None


def ome_interval_s(xml: str) -> float | None:
    """Return the seconds between two frames that OME-XML says; None if it doesn't."""
    interval = re.search(r'\bTimeIncrement="([0-9.eE+-]+)"', xml)
    unit = re.search(r'\bTimeIncrementUnit="([^"]+)"', xml)
    return _product(float(interval[1]), SECONDS.get(unit[1] if unit else "s")) if interval else None


def ome_size_um(xml: str, axis: str) -> float | None:
    """Return the size of a pixel along X or Y, or the distance of planes (Z), in micrometres; None if it isn't said."""
    size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', xml)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', xml)
    factor = MICROMETRES.get(unit[1] if unit else "um")
    return float(size[1]) * factor if size and factor else None


def _resolution_size(page: TiffPage, tag: str, unit_um: float) -> float | None:
    value: Any = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or 0 in value:
        return None
    return float(unit_um * value[1] / value[0])


def known_sides(y_um: float | None, x_um: float | None) -> tuple[float, float] | None:
    """Return height and width of a pixel; None if one of them is unknown or impossible."""
    if y_um is None or x_um is None or not (0 < y_um < float("inf") and 0 < x_um < float("inf")):
        return None
    return y_um, x_um
