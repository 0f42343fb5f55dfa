"""Writes small files of microscopes' programs byte by byte, so that they share no code with the readers."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CZI_KINDS = {("uint8", 1): 0, ("uint16", 1): 1, ("float32", 1): 2, ("uint8", 3): 3, ("uint16", 3): 4}


def _split(data: bytes) -> bytes:
    """Low bytes of 16-bit numbers, then the high ones."""
    numbers: Array = np.frombuffer(data, np.uint8).reshape(-1, 2)
    return bytes(numbers.T.tobytes())


CZI_CODECS: dict[str, tuple[int, Callable[[Array], bytes]]] = {
    "none": (0, lambda tile: tile.tobytes()),
    "lzw": (2, lambda tile: bytes(imagecodecs.lzw_encode(tile.tobytes()))),
    "jpeg xr": (4, lambda tile: bytes(imagecodecs.jpegxr_encode(tile, level=1.0))),
    "zstd": (5, lambda tile: bytes(imagecodecs.zstd_encode(tile.tobytes()))),
    "zstd with a header": (6, lambda tile: b"\1" + bytes(imagecodecs.zstd_encode(tile.tobytes()))),
    "zstd of split bytes": (6, lambda tile: b"\3\1\1" + bytes(imagecodecs.zstd_encode(_split(tile.tobytes())))),
}


def write_czi(
    path: Path,
    tiles: Sequence[tuple[Mapping[str, int], Array]],
    *,
    codec: str = "none",
    pixel_size_um: float | None = None,
    names: Sequence[str] = (),
    pyramid: Sequence[tuple[Mapping[str, int], Array]] = (),
) -> Path:
    """Write a CZI of tiles.

    Args:
        path: of the file.
        tiles: place on the axes (X and Y in pixels, C, Z, T, S, M) and pixels, (y, x) or (y, x, 3) as red, green, blue.
        codec: one of `CZI_CODECS`.
        pixel_size_um: for the metadata.
        names: of the channels.
        pyramid: tiles of half the resolution, as above.
    """
    code, encode = CZI_CODECS[codec]
    data = bytearray(1024)
    entries = []
    for is_reduced, (place, pixels) in [*((0, each) for each in tiles), *((1, each) for each in pyramid)]:
        samples = pixels.shape[2] if pixels.ndim == 3 else 1
        stored = np.ascontiguousarray(pixels[..., ::-1] if samples == 3 and codec != "jpeg xr" else pixels)
        sides = {"X": pixels.shape[1], "Y": pixels.shape[0]}
        dimensions = b"".join(
            struct.pack("<4siifi", axis.encode(), start, (1 + is_reduced) * sides.get(axis, 1), 0, sides.get(axis, 1))
            for axis, start in {"X": 0, "Y": 0, **place}.items()
        )
        count = len(dimensions) // 20
        kind = CZI_KINDS[pixels.dtype.name, samples]
        entry = struct.pack("<2siqiiB5xi", b"DV", kind, len(data), 0, code, is_reduced, count) + dimensions
        entries.append(entry)
        body = encode(stored)
        head = struct.pack("<iiq", 4, 0, len(body)) + entry
        data += _czi_segment(b"ZISRAWSUBBLOCK", head.ljust(256, b"\0") + b"<a/>" + body)
    directory = len(data)
    data += _czi_segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    metadata = 0
    if pixel_size_um is not None or names:
        size_m = (pixel_size_um or 0) * 1e-6
        distances = "".join(f'<Distance Id="{axis}"><Value>{size_m}</Value></Distance>' for axis in "XY")
        listed = "".join(
            f'<Channel Id="Channel:{number}" Name="{name}"><ContrastMethod>Other</ContrastMethod></Channel>'
            for number, name in enumerate(names)
        )
        information = (
            f"<Information><Image><Dimensions><Channels>{listed}</Channels></Dimensions></Image></Information>"
        )
        xml = (
            f"<ImageDocument><Metadata>{information}<Scaling><Items>{distances}</Items></Scaling></Metadata>"
            "</ImageDocument>"
        )
        metadata = len(data)
        data += _czi_segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(xml), 0) + xml.encode())
    header = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"", b"", 0, directory, metadata, 0, 0)
    data[: 32 + len(header)] = struct.pack("<16sqq", b"ZISRAWFILE", 992, 992) + header
    path.write_bytes(data)
    return path


def _czi_segment(mark: bytes, body: bytes) -> bytes:
    return struct.pack("<16sqq", mark, len(body), len(body)) + body


def write_lif(
    path: Path, images: Mapping[str, tuple[str, Array]], *, pixel_size_um: float = 0.5, names: Sequence[str] = ()
) -> Path:
    """Write a LIF: images by their names, each its axes (of T, Z, C, Y, X) and its pixels; `names` of the channels."""
    numbers = {"X": 1, "Y": 2, "Z": 3, "T": 4}
    elements, blocks = [], []
    for number, (name, (axes, pixels)) in enumerate(images.items()):
        steps = dict(zip(axes, pixels.strides, strict=True))
        sides = dict(zip(axes, pixels.shape, strict=True))
        channels = "".join(
            f'<ChannelDescription DataType="{int(pixels.dtype.kind == "f")}" ChannelTag="0" '
            f'Resolution="{8 * pixels.itemsize}" NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="Gray" '
            f'IsLUTInverted="0" BytesInc="{channel * steps.get("C", 0)}" BitInc="0">'
            + "".join(
                f"<ChannelProperty><Key>DyeName</Key><Value>{dye}</Value></ChannelProperty>"
                for dye in names[channel : channel + 1]
            )
            + "</ChannelDescription>"
            for channel in range(sides.get("C", 1))
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{numbers[axis]}" NumberOfElements="{sides[axis]}" Origin="0" '
            f'Length="{pixel_size_um * 1e-6 * (sides[axis] - 1)}" Unit="m" BitInc="0" BytesInc="{steps[axis]}"/>'
            for axis in sorted(set(axes) - {"C"}, key=lambda axis: numbers[axis])
        )
        elements.append(
            f'<Element Name="{name}" Visibility="1" CopyOption="1" UniqueID="{number}"><Data><Image><ImageDescription>'
            f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
        )
        label = f"MemBlock_{number}"
        head = struct.pack("<iiBqBi", 0x70, 2 * len(label) + 14, 0x2A, pixels.nbytes, 0x2A, len(label))
        blocks.append(head + label.encode("utf-16-le") + pixels.tobytes())
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="file.lif" Visibility="1" CopyOption="1" UniqueID="f">'
        f'<Data><Experiment Path="file.lif"/></Data><Memory Size="0" MemoryBlockID="MemBlock_f"/>'
        f"<Children>{''.join(elements)}</Children></Element></LMSDataContainerHeader>"
    )
    head = struct.pack("<iiBi", 0x70, 2 * len(xml) + 5, 0x2A, len(xml))
    path.write_bytes(head + xml.encode("utf-16-le") + b"".join(blocks))
    return path


def lv(name: str, value: Any) -> bytes:
    """A value of a table of ND2: a text, number, flag, bytes, or a table (dict) or list of such."""
    title = (name + "\0").encode("utf-16-le")
    kinds = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d")}
    if isinstance(value, str):
        return bytes([8, len(name) + 1]) + title + (value + "\0").encode("utf-16-le")
    if isinstance(value, bytes):
        return bytes([9, len(name) + 1]) + title + struct.pack("<Q", len(value)) + value
    if isinstance(value, dict | list):
        parts = [lv(*pair) for pair in (value.items() if isinstance(value, dict) else (("", each) for each in value))]
        start = bytes([11, len(name) + 1]) + title
        length = len(start) + 12 + sum(map(len, parts))
        places = itertools.accumulate(map(len, parts[:-1]), initial=len(start) + 12) if parts else ()
        return (
            start + struct.pack("<IQ", len(parts), length) + b"".join(parts) + struct.pack(f"<{len(parts)}Q", *places)
        )
    kind, form = kinds[type(value)]
    return bytes([kind, len(name) + 1]) + title + struct.pack(form, value)


def nd2_loop(axis: str, count: int, inner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One loop of an experiment: T, Z, or P (positions)."""
    pars: dict[str, Any] = {"uiCount": count}
    if axis == "P":
        pars["Points"] = [{"dPosX": float(number), "dPosY": 0.0, "dPosZ": 0.0} for number in range(count)]
    level: dict[str, Any] = {"eType": {"T": 1, "P": 2, "Z": 4}[axis], "uLoopPars": pars}
    if axis == "T":
        pars |= {"dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0, "dMinPeriodDiff": 0.0}
    if axis == "Z":
        pars |= {"dZLow": 0.0, "dZHigh": 1.0, "dZStep": 1.0, "dZHome": 0.0, "iType": 0, "bAbsolute": True}
    if axis == "P":
        level["pItemValid"] = bytes([1] * count)
    if inner:
        level["ppNextLevelEx"] = [dict(inner)]
    return level


def write_nd2(
    path: Path,
    frames: Sequence[Array],
    loops: Mapping[str, Any] | None = None,
    *,
    is_packed: bool = False,
    planes: int | None = None,
    pixel_size_um: float = 0.25,
    changes: Mapping[str, Any] | None = None,
    names: Sequence[str] = ("Cells",),
    attributes_chunk: bytes = b"",
) -> Path:
    """Write an ND2 of version 3.

    Args:
        path: of the file.
        frames: (y, x, components) each.
        loops: the experiment, see `nd2_loop`.
        is_packed: whether frames are deflated.
        planes: channels, if they are other than the components.
        pixel_size_um: for the metadata.
        changes: other values of the attributes.
        names: of the channels; the last one is that of all further ones.
        attributes_chunk: the bytes of the attributes, in place of those that fit.
    """
    height, width, components = frames[0].shape
    planes = planes or components
    bits = 8 * frames[0].itemsize
    attributes = {
        "uiWidth": width, "uiWidthBytes": width * components * frames[0].itemsize, "uiHeight": height,
        "uiComp": components, "uiBpcInMemory": bits, "uiBpcSignificant": bits, "uiSequenceCount": len(frames),
        "uiTileWidth": width, "uiTileHeight": height, "eCompression": 0 if is_packed else 2, **(changes or {}),
    }  # fmt: skip
    each_plane = [
        {"sDescription": [*names, *planes * [names[-1]]][number], "uiCompCount": components // planes, "uiColor": 255}
        for number in range(planes)
    ]
    picture = {
        "dCalibration": pixel_size_um,
        "bCalibrated": True,
        "sPicturePlanes": {
            "uiCount": planes,
            "uiCompCount": components,
            "sPlaneNew": {f"a{number}": plane for number, plane in enumerate(each_plane)},
            "sSampleSetting": {},
        },
    }
    chunks: dict[str, bytes] = {}
    for number, frame in enumerate(frames):
        pixels = frame.tobytes()
        chunks[f"ImageDataSeq|{number}!"] = struct.pack("<d", number) + (zlib.compress(pixels) if is_packed else pixels)
    chunks["ImageAttributesLV!"] = attributes_chunk or lv("SLxImageAttributes", attributes)
    chunks["ImageMetadataSeqLV|0!"] = lv("SLxPictureMetadata", picture)
    if loops:
        chunks["ImageMetadataLV!"] = lv("SLxExperiment", dict(loops))
    data = bytearray(_nd2_chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32))
    entries = b""
    for name, content in chunks.items():
        entries += name.encode() + struct.pack("<QQ", len(data), len(content))
        data += _nd2_chunk(name.encode(), content, 4072)
    place = len(data)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!"
    data += _nd2_chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", entries + end + struct.pack("<Q", place), 32)
    path.write_bytes(data)
    return path


def _nd2_chunk(name: bytes, content: bytes, name_bytes: int) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, name_bytes, len(content)) + name.ljust(name_bytes, b"\0") + content
