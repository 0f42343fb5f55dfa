"""Writes small OME-Zarrs byte by byte, so that they share no code with the reader."""

from __future__ import annotations

import itertools
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def write(
    folder: Path,
    array: Array,
    axes: str,
    *,
    version: str = "0.4",
    chunk_px: int = 32,
    channels: Sequence[str] = (),
    **metadata: Any,
) -> Path:
    """Write an image of one resolution; `metadata` replaces entries of its multiscale."""
    omero = {"omero": {"channels": [{"label": name} for name in channels]}} if channels else {}
    kinds = {"t": "time", "c": "channel"}
    multiscale = {
        "axes": [{"name": axis, "type": kinds.get(axis, "space"), "unit": "micrometer"} for axis in axes],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5] * len(axes)}]},
            {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]},
        ],
        **metadata,
    }
    is_modern = version == "0.5"
    if is_modern:
        attributes = {"ome": {"version": version, "multiscales": [multiscale], **omero}}
        write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    else:
        write_json(folder / ".zgroup", {"zarr_format": 2})
        write_json(folder / ".zattrs", {"multiscales": [{"version": version, **multiscale}], **omero})
    write_array(folder / "0", array, is_modern=is_modern, chunk_px=chunk_px)
    return folder


def plate(folder: Path, wells: dict[str, list[Array]], version: str = "0.4") -> Path:
    """A plate of wells, each with its fields of view."""

    def group(path: Path, attributes: dict[str, Any]) -> None:
        if version == "0.5":
            write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}})
        else:
            write_json(path / ".zgroup", {"zarr_format": 2})
            write_json(path / ".zattrs", attributes)

    group(folder, {"plate": {"wells": [{"path": well} for well in wells]}})
    for well, fields in wells.items():
        group(folder / well, {"well": {"images": [{"path": str(number)} for number in range(len(fields))]}})
        for number, field in enumerate(fields):
            write(folder / well / str(number), field, "yx", version=version)
    return folder


def write_array(folder: Path, array: Array, *, is_modern: bool, chunk_px: int) -> None:
    """Write a Zarr array: zlib in format 2, plain bytes in format 3."""
    chunks = [min(side, chunk_px) if axis >= array.ndim - 2 else 1 for axis, side in enumerate(array.shape)]
    if is_modern:
        write_json(
            folder / "zarr.json",
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": list(array.shape),
                "data_type": array.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "fill_value": 0,
                "attributes": {},
            },
        )
    else:
        write_json(folder / ".zarray", array_metadata(array, chunks))
    counts = [math.ceil(side / chunk) for side, chunk in zip(array.shape, chunks, strict=True)]
    for place in itertools.product(*map(range, counts)):
        part = array[tuple(slice(n * chunk, (n + 1) * chunk) for n, chunk in zip(place, chunks, strict=True))]
        padded = np.pad(part, [(0, chunk - side) for chunk, side in zip(chunks, part.shape, strict=True)])
        data = padded.astype(padded.dtype.newbyteorder("<")).tobytes()
        path = folder.joinpath(*(["c"] if is_modern else []), *map(str, place))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if is_modern else zlib.compress(data))


def array_metadata(array: Array, chunks: list[int]) -> dict[str, Any]:
    """The ``.zarray`` of an array."""
    return {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": chunks,
        "dtype": array.dtype.newbyteorder("<").str,
        "compressor": {"id": "zlib", "level": 1},
        "filters": None,
        "fill_value": 0,
        "order": "C",
        "dimension_separator": "/",
    }


def write_json(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table))


def zipped(folder: Path, target: Path, *, below: str = "") -> Path:
    """Pack a folder, its members below another one where that is given."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{below}{path.relative_to(folder)}")
    return target
