"""Draws tracks as a small animation: the movie with the latest path of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.tracking.tracks import Tracking

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]

#: Largest side of the animation in pixels, and its largest number of frames, taken evenly from the movie.
SIDE_PX = 640
MOST_FRAMES = 120
#: Number of frames for which the path of a cell is drawn.
TRAIL_FRAMES = 12
FRAME_MS = 120
#: Percentiles of a frame that become black and white.
STRETCH = (0.5, 99.7)
#: Colours of the palette: grey levels of the image, few so that GIF packs them well, then hues of the tracks.
_GREYS = 32
_HUES = 256 - _GREYS
#: Side of the square over which pixels are averaged. Without averaging, noise takes most of the bytes of a GIF.
_SMOOTHED_PX = 3


def write_preview(
    path: Path, images: Iterable[Array], tracking: Tracking, offsets_px: list[tuple[int, int]] | None = None
) -> None:
    """Write ``tracks.gif``. Each cell is a dot with a trail of its colour. Daughters begin where their parent ended.

    Args:
        path: path of the file.
        images: (Y, X) frames of any real dtype, read one at a time.
        tracking: result of the linker.
        offsets_px: for each frame, the movement of the scene since the first frame; none by default.

    Raises:
        OSError: the file can't be written.
    """
    first, *rest = _pictures(images, tracking, offsets_px)
    first.save(path, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=False, disposal=1)


def _pictures(images: Iterable[Array], tracking: Tracking, offsets_px: list[tuple[int, int]] | None) -> Iterator[Any]:
    from PIL import Image, ImageDraw

    frames = len(tracking.regions)
    every = -(-frames // MOST_FRAMES)
    trails = _Trails(tracking)
    palette = _palette()
    for number, image in enumerate(images):
        trails.step(number)
        if number % every:
            continue
        step = -(-max(image.shape) // SIDE_PX)
        picture = Image.fromarray(_greys(image, step))
        picture.putpalette(palette)
        pen = ImageDraw.Draw(picture)
        for label, places in trails.shown():
            points = [tuple((place + (offsets_px[number] if offsets_px else 0))[::-1] / step) for place in places]
            color = _GREYS + label % _HUES
            if len(points) > 1:
                pen.line(points, fill=color, width=1)
            x, y = points[-1]
            pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=color)
        yield picture


class _Trails:
    """The last positions of the cells of one frame."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking
        self.parents = {track.label: track.parent for track in tracking.tracks}
        self.places: dict[int, list[tuple[int, Array]]] = {}
        self.here: list[int] = []

    def step(self, frame: int) -> None:
        """Go to the next frame."""
        self.here = self.tracking.track_labels[frame].tolist()
        for label, place in zip(self.here, self.tracking.regions[frame].centroids_px, strict=True):
            if label not in self.places:
                parent = self.parents[label]
                self.places[label] = self.places.get(parent, [])[-1:] if parent is not None else []
            recent = [each for each in self.places[label] if each[0] > frame - TRAIL_FRAMES]
            self.places[label] = [*recent, (frame, place)]

    def shown(self) -> Iterator[tuple[int, list[Array]]]:
        """Yield label and positions of each cell of the frame, the current position last."""
        for label in self.here:
            yield label, [place for _, place in self.places[label]]


def _greys(image: Array, step: int) -> Picture:
    from scipy.ndimage import uniform_filter

    small = uniform_filter(image.astype(np.float32), max(step, _SMOOTHED_PX))[::step, ::step]
    low, high = np.percentile(small, STRETCH)
    span = float(high - low) or 1.0
    levels: Picture = (np.clip((small - low) / span, 0, 1) * (_GREYS - 1)).astype(np.uint8)
    return levels


def _palette() -> bytes:
    """Return grey levels, then hues that differ by the golden angle, so that successive labels look different."""
    from colorsys import hsv_to_rgb

    greys = [(level * 255 // (_GREYS - 1),) * 3 for level in range(_GREYS)]
    hues = [tuple(int(255 * part) for part in hsv_to_rgb(hue * 0.618 % 1, 0.75, 1.0)) for hue in range(_HUES)]
    return bytes(value for color in [*greys, *hues] for value in color)
