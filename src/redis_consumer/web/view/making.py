"""Makes the files of a view. It runs in a child process, since it decodes untrusted files.

An image gets ``facts.json``, ``image.tif``, ``thumbnail.png`` and ``view.json``. A result gets a file for each layer
and ``view.json``, which is written last.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.text import result_stem
from redis_consumer.web.view.facts import facts_of
from redis_consumer.web.view.inputs import open_first
from redis_consumer.web.view.layout import FACTS, IMAGE, THUMBNAIL, VIEW, ViewLayer
from redis_consumer.web.view.pixels import ShownImage
from redis_consumer.web.view.pyramids import halved, write_layer
from redis_consumer.web.view.result_layers import write_result_layers
from redis_consumer.web.view.tile_files import read_tile

Array = npt.NDArray[Any]
Tick = Callable[[float], None]

THUMBNAIL_PX = 256
#: Channels that a thumbnail shows.
_MOST_SHOWN = 4
#: Values of an image that is shown at once: 4 MP of 4 channels.
SMALL_VALUES = 16 << 20
#: Tiles of a view. Their places are kept in memory while they are written.
_MOST_TILES = 4 << 20


def make_image(request: Mapping[str, Any], tick: Tick) -> dict[str, Any]:
    """Make facts and view of an image.

    Args:
        request: ``path`` of the file or folder, ``folder`` for the files, ``name`` for messages, the job's fields
            ``order`` and ``field``; ``is_whole``: whether a large image gets a view and not only its facts;
            ``max_bytes`` of pixels that can only be read whole.
        tick: called with the share that is done, 0..1.

    Returns:
        ``is_complete``: whether the view is made.

    Raises:
        InvalidImage: the image can't be read or shown.
        UnsafeArchive: it is an archive that can't be read.
        OSError: the files can't be written.
    """
    folder = Path(request["folder"])
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="unpacked-") as unpacked,
        open_first(
            Path(request["path"]), request["name"], Path(unpacked),
            order=request["order"], field=request["field"], max_bytes=request["max_bytes"],
        ) as (image, images, name),
    ):  # fmt: skip
        layer = _image_layer(image)
        facts = facts_of(image, images, name)
        write_json(folder / FACTS, facts)
        if layer.planes * layer.width * layer.height > SMALL_VALUES and not request["is_whole"]:
            return {"is_complete": False}
        frames = image.frames
        write_layer(folder / f"{IMAGE}.tif", layer, lambda t, z, window: image.read(frames[t][z], window), tick)
    _write_thumbnail(folder, layer, facts)
    write_json(folder / VIEW, {"layers": [layer.as_table()]})
    return {"is_complete": True}


def make_result(request: Mapping[str, Any], tick: Tick) -> dict[str, Any]:
    """Make the layers of a job's result.

    Args:
        request: ``path`` of the zip, ``folder`` for the files, ``name`` of the image, for messages and the names of the
            files in the zip; ``axes`` of the frames of the image, pairs of a letter and a length.
        tick: called with the share that is done, 0..1.

    Returns:
        ``is_complete``.

    Raises:
        InvalidImage: a file of the result can't be read.
        UnsafeArchive: the zip can't be read.
        OSError: the files can't be written.
    """
    folder = Path(request["folder"])
    axes = tuple((str(letter), int(length)) for letter, length in request["axes"])
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpacked-") as unpacked:
        stem = str(result_stem(request["name"]))
        layers = write_result_layers(Path(request["path"]), folder, Path(unpacked), (stem, axes), tick)
    write_json(folder / VIEW, {"layers": [layer.as_table() for layer in layers]})
    return {"is_complete": True}


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a file that appears only when it is complete."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(table, allow_nan=False, separators=(",", ":")), encoding="utf-8")
    os.replace(part, path)


def _image_layer(image: ShownImage) -> ViewLayer:
    _, height, width, channels = image.shape
    layer = ViewLayer(IMAGE, image.dtype, width, height, len(image.frames), len(image.frames[0]), channels)
    if layer.planes * layer.tiles_a_plane > _MOST_TILES:
        raise InvalidImage(
            f"{image.name}: its {layer.planes} planes of {width} x {height} px are too many to be shown; split the file"
        )
    return layer


def _write_thumbnail(folder: Path, layer: ViewLayer, facts: Mapping[str, Any]) -> None:
    """Write the middle plane at the first time, with its channels in their colours, as PNG."""
    from PIL import Image

    level = len(layer.levels) - 1
    size = layer.levels[level]
    total = np.zeros((size.height, size.width, 3), np.float32)
    for channel in facts["channels"][:_MOST_SHOWN]:
        plane = layer.plane_of(0, layer.z // 2, channel["index"])
        tile = read_tile(folder / f"{IMAGE}.tif", layer, plane, level)
        span = max(channel["high"] - channel["low"], 1e-30)
        share = np.clip((tile[: size.height, : size.width].astype(np.float32) - channel["low"]) / span, 0, 1)
        color = [int(channel["color"][start : start + 2], 16) for start in (1, 3, 5)]
        total += share[..., np.newaxis] * np.array(color, np.float32)
    while max(total.shape[:2]) > THUMBNAIL_PX:
        total = np.stack([halved(total[..., sample]) for sample in range(3)], axis=-1)
    picture = Image.fromarray(np.clip(np.rint(total), 0, 255).astype(np.uint8))
    picture.save(folder / f"{THUMBNAIL}.part", "PNG")
    os.replace(folder / f"{THUMBNAIL}.part", folder / THUMBNAIL)
