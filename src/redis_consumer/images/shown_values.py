"""Turns the samples that a file stores into the values that a viewer shows: inverted grey, palettes, alpha, inks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.images.image import Array, Source
from redis_consumer.images.planes import Planes, Window

if TYPE_CHECKING:
    from tifffile import TiffPage

_PHOTOMETRIC = 262
_MIN_IS_WHITE, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 2, 3, 5, 6
_ALPHA = (1, 2)
_COLOUR_SAMPLES = 3


@dataclass(frozen=True)
class ShownSamples:
    """How stored samples become shown ones.

    Attributes:
        stored: number of samples of a pixel in the file.
        shown: number of samples after the change.
        dtype: of the shown samples.
        is_colour: whether they are red, green and blue; otherwise they are channels.
        change: takes (..., stored) and returns (..., shown).
    """

    stored: int
    shown: int
    dtype: np.dtype[Any]
    is_colour: bool
    change: Callable[[Array], Array] | None = None

    def source(self, stored: Source) -> Source:
        """The opened file with shown samples."""
        at = stored.axes.find("S")
        sides = [side for axis, side in enumerate(stored.shape) if axis != at]
        letters = stored.axes.replace("S", "")
        if self.shown > 1:
            place = at if at >= 0 else len(letters)
            sides.insert(place, self.shown)
            letters = letters[:place] + ("S" if self.is_colour else "C") + letters[place:]
        source = replace(stored, shape=tuple(sides), axes=letters, dtype=self.dtype)
        if self.change is None:
            return source
        return replace(source, decode=lambda: self._whole(stored.decode(), at))

    def planes(self, stored: Planes) -> Planes:
        """The planes of an opened file with shown samples."""
        source = self.source(stored.source)
        if self.change is None:
            return replace(stored, source=source)
        change, old, new = self.change, _Others(stored.source), _Others(source)

        def read(numbers: Sequence[int], window: Window) -> Array:
            places = [new.split(number) for number in numbers]
            bases = sorted({base for base, _ in places})
            wanted = [old.join(base, sample) for base in bases for sample in range(self.stored)]
            pixels = stored.read(wanted, window)
            shown = change(pixels.reshape(*pixels.shape[:2], len(bases), self.stored))
            return np.stack([shown[:, :, bases.index(base), sample] for base, sample in places], axis=-1)

        return Planes(source, read)

    def _whole(self, array: Array, at: int) -> Array:
        samples = np.moveaxis(array, at, -1) if at >= 0 else array[..., np.newaxis]
        shown = self.change(samples) if self.change is not None else samples
        if self.shown == 1:
            return np.ascontiguousarray(shown[..., 0])
        return np.ascontiguousarray(np.moveaxis(shown, -1, at) if at >= 0 else shown)


class _Others:
    """Divides the number of a plane into the number of its pixels' plane and that of its sample."""

    def __init__(self, source: Source) -> None:
        others = [(side, axis) for side, axis in zip(source.shape, source.axes, strict=True) if axis not in "YX"]
        samples = [place for place, (_, axis) in enumerate(others) if axis == "S"]
        self._at = samples[0] if samples else -1
        self._shape = tuple(side for side, _ in others)
        self._rest = tuple(side for place, side in enumerate(self._shape) if place != self._at)

    def split(self, number: int) -> tuple[int, int]:
        index = list(np.unravel_index(number, self._shape)) if self._shape else []
        sample = int(index.pop(self._at)) if self._at >= 0 else 0
        return int(np.ravel_multi_index(tuple(index), self._rest)) if self._rest else 0, sample

    def join(self, base: int, sample: int) -> int:
        index = list(np.unravel_index(base, self._rest)) if self._rest else []
        if self._at >= 0:
            index.insert(self._at, np.intp(sample))
        return int(np.ravel_multi_index(tuple(index), self._shape)) if self._shape else 0


def _without_alpha(samples: int, extra: tuple[int, ...]) -> list[int]:
    """Return the indices of the samples but alpha. `extra` says what the last ones are."""
    return [index for index in range(samples) if index < samples - len(extra) or extra[index - samples] not in _ALPHA]


def of_page(page: TiffPage, dtype: np.dtype[Any], *, has_lut: bool) -> ShownSamples:
    """Return what the tags of a TIFF page say of its samples.

    Min-is-white of unsigned integers is ``2^bits - 1 - value``; of signed integers and floats, which have no largest
    value, the value changes its sign. Alpha is left out. A palette of greys gives its greys. Another palette gives
    colours, or is a look-up table of ImageJ, which doesn't change the values unless bright and dark are exchanged.

    Args:
        page: the first page.
        dtype: of the stored samples.
        has_lut: whether ImageJ wrote the file, so that its palette is a look-up table.
    """
    samples, photometric = int(page.samplesperpixel), int(page.photometric)
    kept = _without_alpha(samples, tuple(map(int, page.extrasamples)))
    if photometric == _PALETTE and samples == 1 and page.colormap is not None:
        return of_palette(np.asarray(page.colormap).T, dtype, has_lut=has_lut)
    if photometric == _SEPARATED and len(kept) == 4 and dtype.kind == "u":
        return ShownSamples(
            samples, _COLOUR_SAMPLES, dtype, is_colour=True, change=lambda array: _colour_of_inks(array, kept)
        )
    is_colour = photometric in {_RGB, _YCBCR} and len(kept) == _COLOUR_SAMPLES
    if photometric == _MIN_IS_WHITE and _PHOTOMETRIC in page.tags:  # without the tag, it is the library's default
        bits = int(page.bitspersample)
        return ShownSamples(samples, len(kept), dtype, is_colour, lambda array: inverted(array[..., kept], bits))
    if len(kept) < samples:
        return ShownSamples(samples, len(kept), dtype, is_colour, lambda array: array[..., kept])
    return ShownSamples(samples, samples, dtype, is_colour)


def inverted(array: Array, bits: int) -> Array:
    """Exchange bright and dark.

    >>> inverted(np.array([0, 4095], np.uint16), 12).tolist()
    [4095, 0]
    """
    if array.dtype.kind == "u":
        result: Array = array.dtype.type(2**bits - 1) - array
        return result
    return -array if array.dtype.kind == "f" else ~array


def of_palette(colours: Array, dtype: np.dtype[Any], *, has_lut: bool) -> ShownSamples:
    """Return how the indices of a palette become values, see `of_page`.

    Args:
        colours: (N, 3) unsigned integers.
        dtype: of the indices.
        has_lut: whether it is a look-up table.
    """
    is_short = colours.dtype.itemsize > 1 and bool(((colours % 257 == 0) | (colours % 256 == 0)).all())
    table = (colours >> 8).astype(np.uint8) if is_short else np.ascontiguousarray(colours)
    if (table == table[:, :1]).all():
        return ShownSamples(1, 1, table.dtype, is_colour=False, change=lambda array: _looked_up(table[:, 0], array))
    if has_lut:
        light = table.sum(axis=1, dtype=np.int64)
        half = len(light) // 2
        if light[:half].sum() > light[half:].sum():
            bits = round(math.log2(len(light)))
            return ShownSamples(1, 1, dtype, is_colour=False, change=lambda array: inverted(array, bits))
        return ShownSamples(1, 1, dtype, is_colour=False)
    return ShownSamples(1, 3, table.dtype, is_colour=True, change=lambda array: _looked_up(table, array[..., 0]))


def _looked_up(table: Array, indices: Array) -> Array:
    result: Array = table[np.minimum(indices, len(table) - 1)]
    return result


def _colour_of_inks(array: Array, kept: Sequence[int]) -> Array:
    """Red, green and blue of cyan, magenta, yellow and black."""
    most = float(np.iinfo(array.dtype).max)
    light = most - array[..., list(kept)].astype(np.float64)
    result: Array = np.rint(light[..., :3] * light[..., 3:] / most).astype(array.dtype)
    return result
