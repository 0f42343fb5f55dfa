"""Projects the planes of z stacks, selects one of them, or links their labels, as the field ``z`` of a job says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.axes import as_read
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.planes import Window
from redis_consumer.images.windows import WindowedImage
from redis_consumer.job import Job
from redis_consumer.options import ImageLimits
from redis_consumer.processing.measure import label_channels
from redis_consumer.serving.base import Array


@dataclass(frozen=True)
class Projection:
    """The planes that make each frame.

    Attributes:
        planes: (frames, n) numbers of the planes of each frame.
        how: ``max`` or ``mean``, or anything for one plane.
        calibration: axes of the frames, and sizes.
    """

    planes: Array
    how: str
    calibration: Calibration

    def frame(self, number: int, read: Callable[[int], Array]) -> Array:
        """Make one frame; `read` takes the number of a plane."""
        result: Array | None = None
        for plane in map(int, self.planes[number]):
            pixels = read(plane)
            if result is None:
                result = np.array(pixels)
            else:
                (np.maximum if self.how == "max" else np.add)(result, pixels, out=result)
        if result is None:
            raise ValueError("a frame needs a plane")
        return result / len(self.planes[number]) if self.how == "mean" else result


def limits_of_planes(job: Job, limits: ImageLimits) -> ImageLimits:
    """Return the limits for the planes of an image; if they are projected, any number of them is allowed."""
    return limits if job.z in ("each", "link") else replace(limits, max_frames=None)


def projection_of(job: Job, calibration: Calibration, frames: int, name: str, reading: str) -> Projection | None:
    """Return how the planes of an image become the frames that its job wants; None if each plane is a frame.

    Args:
        job: names ``z``.
        calibration: axes of the planes.
        frames: number of planes.
        name: the user's name for the file, for messages.
        reading: how its axes were read.

    Raises:
        InvalidJob: the field can't be read.
        InvalidImage: the image has several frames but no axis Z, or fewer planes.
    """
    wanted = job.z
    if wanted == "each" or (frames == 1 and wanted in ("max", "mean", "link", 0)):
        return None
    letters = calibration.letters
    if "Z" not in letters:
        axes = f"its frames are {frames} along {letters or 'no named axis'}" if frames > 1 else "it is one plane"
        raise InvalidImage(
            f"{name}: field z: {wanted} needs an axis Z, but {axes}; leave the field empty, or name the axis Z in "
            f"field dimension_order {as_read(reading)}".rstrip()
        )
    if wanted == "link":
        return None
    axis = letters.index("Z")
    planes: Array = np.arange(frames).reshape(calibration.shape)
    table: Array = np.moveaxis(planes, axis, -1).reshape(-1, calibration.shape[axis])
    if isinstance(wanted, int):
        if wanted >= table.shape[1]:
            raise InvalidImage(
                f"{name}: field z: there is no plane {wanted}, the image has {table.shape[1]} (0 to "
                f"{table.shape[1] - 1}); correct the field"
            )
        table = table[:, [wanted]]
    others = tuple(each for each in calibration.axes if each[0] != "Z")
    return Projection(table, str(wanted), replace(calibration, axes=others))


class LinkedPlanes:
    """Gives each object one label through the planes of its stack.

    Args:
        calibration: axes of the frames, one of them Z if there are several.
        confidences: of the objects in each frame and label image, by label; None if they are not wanted. Those of
            frames that were linked get the new labels.
    """

    def __init__(self, calibration: Calibration, confidences: list[list[Array]] | None = None) -> None:
        self._calibration = calibration
        self._confidences = [] if confidences is None else confidences
        self._linkers: dict[tuple[object, ...], PlaneLinker] = {}

    @property
    def objects(self) -> int:
        """Number of objects in the first label images of all stacks."""
        return sum(linker.count for place, linker in self._linkers.items() if place[:2] == (0, 0))

    def linked(self, results: Iterator[list[Array]]) -> Iterator[list[Array]]:
        """Link the results of groups of frames, (b, Y, X, C) each. What is no label image stays as it is."""
        first = 0
        for arrays in results:
            linked = [self._relabelled(place, array, first) for place, array in enumerate(arrays)]
            self._move_confidences(label_channels(arrays), label_channels(linked), first)
            count = len(arrays[0])
            del arrays
            yield linked
            # Otherwise the next group would be computed beside it.
            del linked
            first += count

    def _relabelled(self, place: int, array: Array, first: int) -> Array:
        if array.dtype.kind not in "iu" or array.ndim != 4:
            return array
        result = np.empty(array.shape, np.int32)
        for number, channel in np.ndindex(len(array), array.shape[-1]):
            places = self._calibration.places(first + number)
            stack = tuple(index for letter, index in places.items() if letter != "Z")
            linker = self._linkers.setdefault((place, channel, *stack), PlaneLinker())
            result[number, ..., channel] = linker.add(array[number, ..., channel])
        return result

    def _move_confidences(self, old: list[Array], new: list[Array], first: int) -> None:
        """Give the confidences of the objects in some frames to their new labels."""
        for frame, tables in enumerate(self._confidences[first : first + len(old[0])] if old else ()):
            for plane, table in enumerate(tables):
                moved = np.full(int(new[plane][frame].max(initial=0)) + 1, np.nan, np.float32)
                moved[new[plane][frame]] = table[old[plane][frame]]
                tables[plane] = moved


class ProjectedImage:
    """An open image whose frames are made of several planes.

    Args:
        image: its planes.
        projection: the planes of each frame.
    """

    def __init__(self, image: WindowedImage, projection: Projection) -> None:
        self.shape = (len(projection.planes), *image.shape[1:])
        self.name, self.calibration, self.notes = image.name, projection.calibration, image.notes
        self.reading, self.channels_read = image.reading, image.channels_read
        self.pixel_size_um, self.pixel_yx_um = image.pixel_size_um, image.pixel_yx_um
        self._image, self._projection = image, projection

    def unpicked(self) -> ProjectedImage:
        """The same image with all channels."""
        return ProjectedImage(self._image.unpicked(), self._projection)

    def read(self, frame: int, window: Window) -> Array:
        """Read a part of one frame, (1, y, x, C) float32."""
        return self._projection.frame(frame, lambda plane: self._image.read(plane, window))


#: Objects of two neighbouring planes are one if they share at least this part of the smaller one.
LEAST_OVERLAP = 0.5


class PlaneLinker:
    """Relabels the planes of a stack one by one.

    An object keeps the label of the object below with which it shares the most pixels, if each is the best match of the
    other and they share at least half of the smaller one.

    Attributes:
        count: objects so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: Array | None = None

    def add(self, labels: Array) -> Array:
        """Return a plane with linked labels.

        >>> linker = PlaneLinker()
        >>> linker.add(np.array([[1, 1, 0, 0]])).tolist(), linker.add(np.array([[0, 2, 0, 1]])).tolist()
        ([[1, 1, 0, 0]], [[0, 1, 0, 2]])

        Args:
            labels: (Y, X) integers; 0 is background.

        Returns:
            (Y, X) int32.
        """
        values, index = np.unique(labels, return_inverse=True)
        index = index.reshape(labels.shape)
        table = np.zeros(len(values), np.int32)
        if self._before is not None:
            table = _links(self._before, index, len(values), is_object=values > 0)
        for place in np.flatnonzero((values > 0) & (table == 0)):
            self.count += 1
            table[place] = self.count
        self._before = table[index]
        return self._before


def _links(before: Array, index: Array, count: int, *, is_object: Array) -> Array:
    """The label of `before` for each of `count` objects; 0 for none."""
    width = int(before.max(initial=0)) + 1
    both, shared = np.unique(before.astype(np.int64) * count + index, return_counts=True)
    below, here = both // count, both % count
    areas_below, areas_here = np.bincount(before.ravel(), minlength=width), np.bincount(index.ravel(), minlength=count)
    smaller = np.minimum(areas_below[below], areas_here[here])
    is_link = (below > 0) & is_object[here] & (shared >= LEAST_OVERLAP * smaller)
    below, here, shared = below[is_link], here[is_link], shared[is_link]
    best_here, best_below = np.zeros(count, np.int64), np.zeros(width, np.int64)
    np.maximum.at(best_here, here, shared)
    np.maximum.at(best_below, below, shared)
    table = np.zeros(count, np.int32)
    taken: set[int] = set()
    for low, high, pixels in zip(below, here, shared, strict=True):
        if pixels == best_here[high] == best_below[low] and low not in taken and not table[high]:
            table[high] = low
            taken.add(low)
    return table
