"""Writes OME-TIFFs whose planes are in several files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile

Array = npt.NDArray[Any]


def write_ome_files(
    folder: Path,
    image: Array,
    file_of: Callable[[int, int, int], str],
    *,
    order: str = "XYCZT",
    identity: bool = True,
    names: Sequence[str] = (),
    in_xml: Callable[[str], str] = lambda file: file,
    byteorder: Literal["<", ">"] = "<",
    change: Sequence[tuple[bytes, bytes]] = (),
    **options: Any,
) -> list[Path]:
    """Write an image (t, z, c, y, x) or (t, z, c, y, x, 3) to several files, each with the metadata of all.

    Args:
        folder: for the files.
        image: the pixels.
        file_of: takes t, z and c of a plane and returns the name of its file.
        order: how planes of a file follow each other, as OME's DimensionOrder.
        identity: whether files have a UUID.
        names: of the channels.
        in_xml: takes the name of a file and returns the one in the metadata.
        byteorder: of the files.
        change: what the first occurrence of texts in the metadata is replaced by.
        options: for tifffile.
    """
    sizes = dict(zip("TZC", image.shape, strict=False))
    samples = image.shape[5] if image.ndim == 6 else 1
    planes: dict[str, list[tuple[int, int, int]]] = {}
    outer = [axis for axis in reversed(order) if axis in "TZC"]
    for index in np.ndindex(*(sizes[axis] for axis in outer)):
        place = dict(zip(outer, index, strict=True))
        key = (place["T"], place["Z"], place["C"])
        planes.setdefault(file_of(*key), []).append(key)
    uuids = {file: f"urn:uuid:00000000-0000-0000-0000-{number:012d}" for number, file in enumerate(planes)}
    data = "".join(_data(uuids, planes, in_xml))
    listed = [*names, *[""] * (image.shape[2] - len(names))]
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name="{each}" SamplesPerPixel="{samples}"/>' for i, each in enumerate(listed)
    )
    files = []
    for file, keys in planes.items():
        own = f' UUID="{uuids[file]}"' if identity else ""
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{own}>'
            '<Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{image.dtype}" SizeX="{image.shape[4]}" '
            f'SizeY="{image.shape[3]}" SizeZ="{sizes["Z"]}" SizeC="{sizes["C"] * samples}" SizeT="{sizes["T"]}" '
            f'PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="2">{channels}{data}</Pixels></Image></OME>'
        )
        metadata = xml.encode()
        for old, new in change:
            metadata = metadata.replace(old, new, 1)
        stack = np.stack([image[key] for key in keys])
        kind = {"photometric": "rgb" if samples == 3 else "minisblack", "metadata": None, **options}
        with tifffile.TiffWriter(folder / file, byteorder=byteorder) as tif:
            for number, plane in enumerate(stack):
                tif.write(plane, description=metadata if number == 0 else None, **kind)
        files.append(folder / file)
    return files


def _data(
    uuids: Mapping[str, str], planes: Mapping[str, list[tuple[int, int, int]]], in_xml: Callable[[str], str]
) -> list[str]:
    return [
        f'<TiffData IFD="{number}" FirstT="{t}" FirstZ="{z}" FirstC="{c}" PlaneCount="1">'
        f'<UUID FileName="{in_xml(file)}">{uuids[file]}</UUID></TiffData>'
        for file, keys in planes.items()
        for number, (t, z, c) in enumerate(keys)
    ]
