"""Reads a window of a TIFF file from the tiles or strips that contain it."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.images.compressed_sides import OWN_SIDES, check_segment
from redis_consumer.images.image import Array, Source
from redis_consumer.images.planes import MAX_SEGMENT_BYTES, NotWindowedError, Planes, Window, array_planes
from redis_consumer.images.tiff import choose_series, open_library, open_stored

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

#: Decoded strips are kept up to this: each spans the image, so that all blocks of a row need the same ones.
CACHE_BYTES = 256 << 20


@contextlib.contextmanager
def open_tiff_planes(path: Path, name: str, field: str = "", *, is_plain: bool = False) -> Iterator[Planes]:
    """Open a TIFF file to read it in windows: tiles, strips, and uncompressed pixels in one piece.

    Args:
        path: the local file.
        name: the user's name for the file, for messages.
        field: which of several images, as for `open_tiff`.
        is_plain: whether its metadata are not read, only its pages.

    Raises:
        InvalidImage: as `redis_consumer.images.tiff.open_tiff`, or it is laid out so that a window can't be read alone.
        Exception: whatever tifffile raises for a damaged file.
    """
    with (
        open_stored(path, name, field, is_plain=is_plain) as (source, shown),
        open_library(path, is_plain=is_plain) as tif,
    ):
        series = choose_series(tif, name, field)
        keyframe = series.keyframe
        if series.dataoffset is not None:
            yield shown.planes(_mapped(path, source, series.dataoffset, tif))
            return
        if (
            keyframe.imagedepth > 1
            or not source.axes.endswith(keyframe.axes)
            or source.shape[-len(keyframe.shape) :] != keyframe.shape
        ):
            raise NotWindowedError(f"{name}: its planes can't be read one by one; save it as an OME-TIFF with tiles")
        segments = _Segments(tif, series, source.dtype)
        if not segments.is_readable:
            raise NotWindowedError(
                f"{name}: is too large to be read at once, and its parts of {segments.segment_bytes / 2**20:.0f} MiB "
                "can't be read one by one; save it with tiles, e.g. of 512 x 512 px"
            )
        with contextlib.closing(segments):
            yield shown.planes(Planes(source, segments.read))


def _mapped(path: Path, source: Source, offset: int, tif: TiffFile) -> Planes:
    """All pages in one piece, uncompressed."""
    stored = source.dtype.newbyteorder(tif.byteorder)
    return array_planes(source, lambda: np.memmap(path, stored, "r", offset, source.shape))


class _Segments:
    """Decodes the tiles or strips of a series of pages of one layout."""

    def __init__(self, tif: TiffFile, series: TiffPageSeries, dtype: np.dtype[Any]) -> None:
        self._tif = tif
        self._series = series
        self._page = page = series.keyframe
        self._samples = page.samplesperpixel
        self._is_planar = page.planarconfig == 2
        self._is_raw = page.is_contiguous and page.is_final
        height, width = page.imagelength, page.imagewidth
        self._side_yx = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        self._grid_yx = (math.ceil(height / self._side_yx[0]), math.ceil(width / self._side_yx[1]))
        self._dtype = dtype
        self._background = page.nodata
        samples = 1 if self._is_planar else self._samples
        self.segment_bytes = math.prod(self._side_yx) * samples * self._dtype.itemsize
        self._most_kept = 0 if page.is_tiled else CACHE_BYTES // self.segment_bytes
        self._kept: dict[tuple[int, int], Array] = {}
        self._band: tuple[int, ...] = ()
        self._is_whole_width = False

    @property
    def is_readable(self) -> bool:
        """Whether segments are small enough to be read whole, or needn't be."""
        return self._is_raw or self.segment_bytes <= MAX_SEGMENT_BYTES

    def close(self) -> None:
        """Give back the memory of the segments that are kept."""
        self._kept.clear()

    def read(self, planes: Sequence[int], window: Window) -> Array:
        """See `Planes.read`."""
        rows, columns = window
        band = (rows.start, rows.stop, *planes)
        self._is_whole_width = columns.stop - columns.start == self._page.imagewidth
        if band != self._band:
            self._band = band
            self._kept.clear()
        result = np.empty((rows.stop - rows.start, columns.stop - columns.start, len(planes)), self._dtype)
        # Planes that are samples of one page are decoded together.
        by_page = itertools.groupby(enumerate(planes), key=lambda item: item[1] // self._samples)
        for page_index, group in by_page:
            samples = {position: plane % self._samples for position, plane in group}
            page = self._series.pages[page_index]
            if page is None:
                result[..., list(samples)] = self._background
            elif self._is_raw:
                self._copy_raw(page, samples, window, result)
            else:
                self._copy_segments(page_index, samples, window, result)
        return result

    def _copy_raw(self, page: TiffPage | TiffFrame, samples: dict[int, int], window: Window, result: Array) -> None:
        stored = self._dtype.newbyteorder(self._tif.byteorder)
        shape = self._page.shaped[:1] + self._page.shaped[2:]
        pixels = np.memmap(self._tif.filehandle.path, stored, "r", page.dataoffsets[0], shape)
        for position, sample in samples.items():
            plane = pixels[sample, ..., 0] if self._is_planar else pixels[0, ..., sample]
            result[..., position] = plane[window]

    def _copy_segments(self, page_index: int, samples: dict[int, int], window: Window, result: Array) -> None:
        down, across = (
            range(part.start // side, math.ceil(part.stop / side))
            for part, side in zip(window, self._side_yx, strict=True)
        )
        for row, column in itertools.product(down, across):
            segments: dict[int, Array] = {}
            target, source = self._overlap(row, column, window)
            for position, sample in samples.items():
                layer, inside = (sample, 0) if self._is_planar else (0, sample)
                if layer not in segments:
                    index = (layer * self._grid_yx[0] + row) * self._grid_yx[1] + column
                    segments[layer] = self._segment(page_index, index)
                result[..., position][target] = segments[layer][..., inside][source]

    def _overlap(self, row: int, column: int, window: Window) -> tuple[Window, Window]:
        """What a segment gives of a window: where it goes in the window, and where it lies in the segment."""
        targets, sources = [], []
        for number, side, part in zip((row, column), self._side_yx, window, strict=True):
            start = number * side
            begin, end = max(start, part.start), min(start + side, part.stop)
            targets.append(slice(begin - part.start, end - part.start))
            sources.append(slice(begin - start, end - start))
        return (targets[0], targets[1]), (sources[0], sources[1])

    def _segment(self, page_index: int, index: int) -> Array:
        key = (page_index, index)
        segment = self._kept.get(key)
        if segment is None:
            segment = self._decode(page_index, index)
            # Nothing is replaced: all blocks of a row need the same strips in the same order, so that what was used
            # longest ago is what is needed next.
            if len(self._kept) < self._most_kept and not self._is_whole_width:
                self._kept[key] = segment
        return segment

    def _decode(self, page_index: int, index: int) -> Array:
        """A segment, (y, x, samples)."""
        page: Any = self._series.pages[page_index]
        count = page.databytecounts[index]
        if count > 2 * MAX_SEGMENT_BYTES:
            raise ValueError(f"segment {index} has {count} bytes")
        file = self._tif.filehandle
        file.seek(page.dataoffsets[index])
        data = file.read(count) if count else None
        if data and self._page.compression in OWN_SIDES:
            check_segment(data, math.prod(self._side_yx) * (1 if self._is_planar else self._samples), index)
        tables = {}
        if self._page.compression in {6, 7}:
            tables = {"jpegtables": page.jpegtables, "jpegheader": self._page.jpegheader}
        segment, _, shape = self._page.decode(data, index, **tables)
        if segment is None:
            return np.full(shape[1:], self._background, self._dtype)
        pixels: Array = np.asarray(segment).reshape(shape)[0]
        return pixels
