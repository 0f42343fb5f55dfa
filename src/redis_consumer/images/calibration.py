"""Keeps what a file says of its axes and sizes, for the files of its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

#: Classic TIFF ends at 4 GiB; compression may fail to make files smaller, and the directory needs room.
CLASSIC_BYTES = (4 << 30) - (64 << 20)
#: ImageJ labels each plane. So many get the name of the channel.
_MOST_LABELS = 10_000
_ORIENTATION = 274
_IMAGEJ_TYPES = ("u1", "u2", "f4")


@dataclass(frozen=True)
class Calibration:
    """Axes of the frames of an image, and sizes.

    Attributes:
        axes: letter and length of each axis of the frames, outermost first, such as ``(("T", 2), ("Z", 3))``; empty for
            a single plane.
        pixel_yx_um: height and width of a pixel in micrometres; None if unknown.
        spacing_um: distance of two planes in micrometres; None if unknown.
        interval_s: time between two frames in seconds; None if unknown.
        channel: names of the channels of which a result is made, joined by commas; empty if unknown.
        orientation: the tag of a TIFF that says how viewers turn its rows and columns; 1 as they are.
    """

    axes: tuple[tuple[str, int], ...] = ()
    pixel_yx_um: tuple[float, float] | None = None
    spacing_um: float | None = None
    interval_s: float | None = None
    channel: str = ""
    orientation: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of the frames."""
        return tuple(length for _, length in self.axes)

    @property
    def letters(self) -> str:
        """Letters of the axes of the frames."""
        return "".join(letter for letter, _ in self.axes)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return prod(self.shape)

    def places(self, frame: int) -> dict[str, int]:
        """Return the number of a frame on each axis, by letter.

        >>> Calibration((("T", 2), ("Z", 3))).places(4)
        {'T': 1, 'Z': 1}
        """
        if not self.axes:
            return {}
        return dict(zip(self.letters, map(int, np.unravel_index(frame, self.shape)), strict=True))

    def fitting(self, frames: int) -> Calibration:
        """Return a calibration for the frames of a result: this one, without its planes if they were projected, or one
        with an axis of frames whose name isn't known.
        """
        flat = tuple(axis for axis in self.axes if axis[0] != "Z")
        for axes in (self.axes, flat, ()):
            if prod(length for _, length in axes) == frames:
                return replace(self, axes=axes)
        return replace(self, axes=(("B", frames),))

    def tiff_options(self, dtype: npt.DTypeLike, shape_yx: tuple[int, int]) -> dict[str, Any]:
        """Return how tifffile writes frames of these axes, as arguments of its ``imwrite``.

        Stacks and images with known sizes have ImageJ's metadata. Those that ImageJ can't have (other types of pixels,
        other axes, or above 4 GB) have OME's. An image of which nothing is known has none of them.

        Args:
            dtype: of the pixels.
            shape_yx: sides of a frame.
        """
        kind = np.dtype(dtype)
        if not (self.axes or self.pixel_yx_um or self.channel) or not self._has_ome_axes:
            plain = self._plain(kind, (*self.shape, *shape_yx))
            return {**plain, **(self._resolution(per_cm=True) if self.pixel_yx_um else {})}
        is_large = kind.itemsize * self.frames * prod(shape_yx) > CLASSIC_BYTES
        if self.letters != "ZT" and not is_large and kind.str[1:] in _IMAGEJ_TYPES:
            return {**self._plain(kind, (*self.shape, *shape_yx)), **self._imagej_options()}
        return self.ome_options(kind, shape_yx)

    def ome_options(self, dtype: npt.DTypeLike, shape_yx: tuple[int, int], name: str = "") -> dict[str, Any]:
        """Return the arguments for an OME-TIFF; frames on axes that OME doesn't have become time.

        Args:
            dtype: of the pixels.
            shape_yx: sides of a frame.
            name: of the channel.
        """
        letters, shape = (self.letters, self.shape) if self._has_ome_axes else ("T", (self.frames,))
        metadata: dict[str, Any] = {"axes": f"{letters}YX"}
        if self.pixel_yx_um is not None:
            for axis, side in zip("YX", self.pixel_yx_um, strict=True):
                metadata |= {f"PhysicalSize{axis}": side, f"PhysicalSize{axis}Unit": "µm"}
        if self.spacing_um is not None:
            metadata |= {"PhysicalSizeZ": self.spacing_um, "PhysicalSizeZUnit": "µm"}
        if self.interval_s is not None:
            metadata |= {"TimeIncrement": self.interval_s, "TimeIncrementUnit": "s"}
        if name or self.channel:
            metadata["Channel"] = {"Name": name or self.channel}
        plain = self._plain(np.dtype(dtype), (*shape, *shape_yx))
        return {**plain, "ome": True, "metadata": metadata, **self._resolution(per_cm=True)}

    @property
    def _has_ome_axes(self) -> bool:
        return self.letters in ("", "T", "Z", "TZ", "ZT")

    def _plain(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> dict[str, Any]:
        is_large = dtype.itemsize * prod(shape) > CLASSIC_BYTES
        # With the same tag, every viewer turns the result as it turns the image, or none of them.
        turned = {} if self.orientation == 1 else {"extratags": [(_ORIENTATION, "H", 1, self.orientation, False)]}
        return {"shape": shape, "dtype": dtype, "photometric": "minisblack", "bigtiff": is_large, **turned}

    def _imagej_options(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"axes": f"{self.letters}YX"}
        if self.pixel_yx_um is not None:
            metadata["unit"] = "um"
        if self.spacing_um is not None and self.pixel_yx_um is not None:
            metadata["spacing"] = self.spacing_um
        if self.interval_s is not None:
            metadata["finterval"] = self.interval_s
        if self.channel and self.frames <= _MOST_LABELS:
            metadata["Labels"] = [self.channel] * self.frames
        return {"imagej": True, "metadata": metadata, **self._resolution(per_cm=False)}

    def _resolution(self, *, per_cm: bool) -> dict[str, Any]:
        """Pixels of a unit: of ImageJ's micrometre, or of TIFF's centimetre."""
        if self.pixel_yx_um is None:
            return {}
        y, x = self.pixel_yx_um
        length = 1e4 if per_cm else 1.0
        return {"resolution": (length / x, length / y), "resolutionunit": "CENTIMETER" if per_cm else "NONE"}
