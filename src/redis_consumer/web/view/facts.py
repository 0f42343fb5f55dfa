"""Collects what the page shows of an image before any job: axes, sizes, channels, and how their values are spread."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.images.planes import Window
from redis_consumer.web.view.layout import TILE_PX
from redis_consumer.web.view.pixels import ShownImage

Array = npt.NDArray[Any]

#: Percentiles of the values of a channel.
PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
_BINS = 256
#: Bytes of the parts whose values are counted, and number of parts: a larger image is sampled evenly.
_SAMPLE_BYTES = 128 << 20
_LEAST_PARTS, _MOST_PARTS = 4, 64
_WHITE, _GREY = "#ffffff", "#bfbfbf"
_RGB = ("#ff0000", "#00ff00", "#0000ff")
#: Colours of channels by what their names contain, and of the others in order.
_NAMED = (
    (r"dapi|hoechst|nucle|dna|405|draq", "#4f7bff"),
    (r"gfp|fitc|488|alexa ?488|green|cy2", "#00d64f"),
    (r"cy5|647|640|far|apc", "#ff4fe0"),
    (r"rfp|mcherry|tritc|cy3|561|568|594|555|texas|red|tdtomato", "#ff4b33"),
    (r"yfp|532|orange", "#ffc800"),
    (r"cfp|445|cyan", "#00d7e6"),
)
_OTHERS = ("#4f7bff", "#00d64f", "#ff4b33", "#ff4fe0", "#ffc800", "#00d7e6", "#bfbfbf")


def facts_of(image: ShownImage, images: int = 1, name: str = "") -> dict[str, Any]:
    """Describe an image.

    Args:
        image: the open image.
        images: number of images in its file or archive; this is the first of them.
        name: of the image in its archive.

    Returns:
        The object FACTS of the API, without thumbnail and suggestions. ``is_sampled`` says whether the values of the
        channels are those of parts of the image.

    Raises:
        InvalidImage: the file is damaged.
    """
    source = image.source
    parts, is_sampled = _parts(image)
    values = [np.concatenate(each) for each in zip(*(_values(image, *part) for part in parts), strict=True)]
    is_colour = bool(image.channels.colours)
    return {
        "format": image.kind,
        "axes": source.axes,
        "axes_read": source.reading,
        "shape": list(source.shape),
        "dtype": source.dtype.name,
        "width": image.shape[2],
        "height": image.shape[1],
        "t": len(image.frames),
        "z": len(image.frames[0]),
        "pixel_size_um": list(source.pixel_yx_um) if source.pixel_yx_um else None,
        "spacing_um": source.spacing_um,
        "interval_s": source.interval_s,
        "channels": [
            {
                **_named(image, index, is_colour=is_colour),
                **_spread(channel, is_natural=is_colour and image.dtype == "uint8"),
            }
            for index, channel in enumerate(values)
        ],
        "is_colour": is_colour,
        "is_sampled": is_sampled,
        "images": images,
        "image_name": name or image.name,
        "notes": list(image.notes),
    }


def _parts(image: ShownImage) -> tuple[list[tuple[int, Window]], bool]:
    """Choose the parts of the image whose values are counted, and return whether there are others."""
    frames, height, width, channels = image.shape
    value_bytes = np.dtype(image.dtype).itemsize
    most = min(max(_SAMPLE_BYTES // (TILE_PX * TILE_PX * channels * value_bytes), _LEAST_PARTS), _MOST_PARTS)
    rows, cols = -(-height // TILE_PX), -(-width // TILE_PX)
    count = frames * rows * cols
    if count <= most:
        return [(f, _window(r, c, image)) for f, r, c in product(range(frames), range(rows), range(cols))], False
    chosen = sorted({round(number) for number in np.linspace(0, count - 1, most)})
    places = (np.unravel_index(number, (frames, rows, cols)) for number in chosen)
    return [(int(frame), _window(int(row), int(col), image)) for frame, row, col in places], True


def _window(row: int, col: int, image: ShownImage) -> Window:
    _, height, width, _ = image.shape
    top, left = row * TILE_PX, col * TILE_PX
    return slice(top, min(top + TILE_PX, height)), slice(left, min(left + TILE_PX, width))


def _values(image: ShownImage, frame: int, window: Window) -> list[Array]:
    pixels = image.read(frame, window)
    return [pixels[..., channel].ravel() for channel in range(image.shape[3])]


def _named(image: ShownImage, index: int, *, is_colour: bool) -> dict[str, Any]:
    channel = image.channels.described[index]
    return {
        "index": index,
        "name": channel.name or f"Channel {index}",
        "is_transmitted": channel.is_transmitted,
        "color": _color(channel.name, index, image, is_colour=is_colour),
    }


def _color(name: str, index: int, image: ShownImage, *, is_colour: bool) -> str:
    if is_colour:
        sample = next(each.index(index) for each in image.channels.colours if index in each)
        return _RGB[sample] if sample < len(_RGB) else _GREY
    if len(image.channels) == 1:
        return _WHITE
    if image.channels.described[index].is_transmitted:
        return _GREY
    found = next((color for pattern, color in _NAMED if re.search(pattern, name, re.IGNORECASE)), None)
    return found or _OTHERS[index % len(_OTHERS)]


def _spread(values: Array, *, is_natural: bool) -> dict[str, Any]:
    """Return how values are spread: range, percentiles, histogram, and the range that is shown at first.

    Args:
        values: of a channel.
        is_natural: whether it is a sample of a photograph, which is shown from 0 to 255.
    """
    low, high = float(values.min()), float(values.max())
    percentiles = np.percentile(values, PERCENTILES)
    counts, _ = np.histogram(values, _BINS, (low, high if high > low else low + 1))
    shown = (percentiles[0], percentiles[-1]) if percentiles[0] < percentiles[-1] else (low, high)
    return {
        "min": low,
        "max": high,
        "low": 0.0 if is_natural else float(shown[0]),
        "high": 255.0 if is_natural else float(shown[1]),
        "percentiles": {f"{rank:g}": float(value) for rank, value in zip(PERCENTILES, percentiles, strict=True)},
        "histogram": counts.tolist(),
    }
