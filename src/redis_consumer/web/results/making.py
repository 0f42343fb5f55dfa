"""Makes the files of a result. It runs in a child process, since it decodes files of users."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.archives import iter_members, zip_files
from redis_consumer.errors import InvalidImage
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.image import calibration_of
from redis_consumer.options import ArchiveLimits
from redis_consumer.outputs import ENDINGS
from redis_consumer.outputs.cells import LabelImages, Window
from redis_consumer.outputs.files import MEASURED, write_outputs
from redis_consumer.text import file_digest, result_stem
from redis_consumer.web.results.corrections import CORRECTIONS, correct
from redis_consumer.web.view.pixels import ShownImage, open_shown
from redis_consumer.web.view.result_layers import LabelFrames, find_features

Array = npt.NDArray[Any]
Tick = Callable[[float], None]

#: Side of the windows in which images are read, and pixels above which they are.
_WINDOW_PX, _WHOLE_PX = 2048, 4096 * 4096
_LIMITS = ArchiveLimits(max_bytes=64 << 30, max_ratio=5000)


def make_files(request: Mapping[str, Any], tick: Tick) -> dict[str, Any]:
    """Write outputs of a result.

    Args:
        request: ``zip`` and ``image`` (paths), ``name`` of the image, ``order`` and ``field`` of the job, ``outputs``
            (names of `ENDINGS`), ``folder`` for the files, ``max_bytes`` of an image that can only be read whole.
        tick: called with the share that is done, 0..1.

    Returns:
        ``files``: path by output.

    Raises:
        InvalidImage: a file can't be read, or the result has no labels.
        UnsafeArchive: the zip can't be read.
        OSError: a file can't be written.
    """
    folder = Path(request["folder"])
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpacked-") as unpacked:
        paths = _unpack(Path(request["zip"]), Path(unpacked))
        made = _write(request, paths, request["outputs"], folder, tick)
    return {"files": {name: str(path) for name, path in made.items()}}


def correct_labels(request: Mapping[str, Any], tick: Tick) -> dict[str, Any]:
    """Make the result of a new version of labels.

    Args:
        request: as for `make_files`, with ``ops``, see `correct`, and ``earlier``: the entries of the corrections so
            far, to which ``entry`` is added. Without ``outputs``: those in the zip are made again.
        tick: called with the share that is done, 0..1.

    Returns:
        ``zip``: path of the new result; ``objects``: number of objects in all frames.

    Raises:
        InvalidImage: a file can't be read, or an operation can't be done.
        UnsafeArchive, OSError: as `make_files`.
    """
    folder = Path(request["folder"])
    unpacked = folder / "new"
    unpacked.mkdir()
    paths = _unpack(Path(request["zip"]), unpacked)
    features = _features(paths, request["name"])
    with LabelFrames(features[0]) as frames:
        places = frames.places(())
    objects = correct(features[0], places, request["ops"])
    outputs = [name for name, ending in ENDINGS.items() if any(path.name.endswith(ending) for path in paths.values())]
    made = _write(request, paths, outputs, folder, tick) if outputs else {}
    for name, path in made.items():
        for member, old in paths.items():
            if old.name.endswith(ENDINGS[name]) and not member.endswith(f"_1{ENDINGS[name]}"):
                path.replace(old)
                break
    (unpacked / CORRECTIONS).write_text(json.dumps([*request["earlier"], request["entry"]]), encoding="utf-8")
    files = sorted(path for path in unpacked.rglob("*") if path.is_file())
    result = Path(zip_files(files, unpacked, name=request["zip_name"]))
    return {"zip": str(result), "objects": objects, "digest": file_digest(result)}


def cut_region(request: Mapping[str, Any], tick: Tick) -> dict[str, Any]:  # noqa: ARG001
    """Copy a region of an image to a TIFF, with all its planes and channels in their own type.

    Args:
        request: ``image`` (path), ``name``, ``order``, ``field``, ``region`` (x, y, width, height), ``target`` (path).
        tick: not used.

    Returns:
        Nothing.

    Raises:
        InvalidImage: the image can't be read, or the region is outside of it.
    """
    from tifffile import imwrite

    x, y, width, height = request["region"]
    with _opened(request) as image:
        _, rows, columns, channels = image.shape
        if x + width > columns or y + height > rows:
            raise InvalidImage(
                f"field region: {width} x {height} px at ({x}, {y}) is outside of the image of {columns} x {rows} px; "
                "give a region inside of it"
            )
        window = (slice(y, y + height), slice(x, x + width))
        places = image.frames
        order = [frame for row in places for frame in row]
        # One plane at a time, channels first.
        planes = (image.read(frame, window)[..., channel] for frame in order for channel in range(channels))
        shape = (len(places), len(places[0]), channels, height, width)
        size = image.source.pixel_yx_um
        metadata: dict[str, Any] = {"axes": "TZCYX"}
        if size is not None:
            metadata |= {"PhysicalSizeY": size[0], "PhysicalSizeX": size[1]}
            metadata |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeXUnit": "µm"}
        names = [channel.name for channel in image.source.channels]
        if len(names) == channels and all(names):
            metadata["Channel"] = {"Name": names}
        imwrite(
            request["target"], planes, shape=shape, dtype=image.dtype, ome=True, photometric="minisblack",
            metadata=metadata,
        )  # fmt: skip
    return {}


def _unpack(path: Path, folder: Path) -> dict[str, Path]:
    """Unpack a result; return path by member."""
    members = iter_members(path, folder, label=path.name, why_skipped=lambda _: "", limits=_LIMITS)
    return {member.name: member.path for member in members if member.path is not None}


def _features(paths: Mapping[str, Path], name: str) -> list[list[Path]]:
    features, _ = find_features(iter(paths.items()), str(result_stem(name)))
    if not features:
        raise InvalidImage(f"{name}: the result has no label images; download the zip")
    return features


def _write(
    request: Mapping[str, Any], paths: Mapping[str, Path], outputs: Sequence[str], folder: Path, tick: Tick
) -> dict[str, Path]:
    """Write outputs of the first label image; return path by output."""
    [features, *_] = _features(paths, request["name"])
    stem = folder / result_stem(request["name"]).name
    with LabelFrames(features) as labels, _grey(request, labels, outputs) as (grey, picture, calibration):
        side = _WINDOW_PX if labels.shape_yx[0] * labels.shape_yx[1] > _WHOLE_PX else 0

        def read(frame: int, window: Window) -> Array:
            stored = labels.read(frame, window)
            with np.errstate(invalid="ignore"):
                found: Array = stored.astype(np.int32)
            if not np.array_equal(found, stored) or found.min(initial=0) < 0:
                raise InvalidImage(f"{request['name']}: the result holds values that are no labels; download the zip")
            return found

        images = LabelImages((labels.count, *labels.shape_yx), read, grey, picture, side, calibration or Calibration())
        write_outputs(outputs, images, stem, tick=lambda frame: tick((frame + 1) / labels.count))
    return {name: stem.with_name(f"{stem.name}{ENDINGS[name]}") for name in outputs}


@contextmanager
def _grey(request: Mapping[str, Any], labels: LabelFrames, outputs: Sequence[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Open the image of the result, if the outputs need it, as functions of `LabelImages`, and its calibration."""
    if not request.get("image") or not {*MEASURED, "overlay"} & set(outputs):
        yield None, None, None
        return
    with _opened(request) as image:
        if image.shape[1:3] != labels.shape_yx or image.shape[0] != labels.count:
            yield None, None, None  # its planes were projected, or its channels are roles
            return
        yield (
            image.read,
            lambda frame, window: image.read(frame, window)[..., 0],
            calibration_of(image.source),
        )


def _opened(request: Mapping[str, Any]) -> AbstractContextManager[ShownImage]:
    path, name = Path(request["image"]), request["name"]
    order, field = request["order"], request["field"]
    return open_shown(path, name, order=order, field=field, max_bytes=request["max_bytes"])
