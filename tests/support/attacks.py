"""Small files that would take all memory or hours, and a process that reads one of them by the real path, bounded.

``python -m support.attacks`` reads lines, each ``[path, fields]`` as JSON: it reads the file as a job with these fields
does, whole or part by part, within `MAX_MEMORY_BYTES` and `MAX_CPU_S`, and prints what became of it as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.options import ImageLimits
from support import ome_zarr

#: Of address space: what libraries map counts as well.
MAX_MEMORY_BYTES = 3 << 30
MAX_CPU_S = 20
HUGE = 2_000_000_000
#: Those of the settings by default.
LIMITS = ImageLimits(max_frames=60)

Tag = tuple[int, int, int, int | bytes]
"""Code, type, count, and the value: a number within the tag, or bytes that are put behind the directory."""


@dataclass(frozen=True)
class Attack:
    """A file to read.

    Attributes:
        write: makes it at a path.
        reason: pattern of the error; empty where it is read.
        fields: of the job.
        suffix: of its name.
    """

    write: Callable[[Path], object]
    reason: str
    fields: dict[str, str] = field(default_factory=dict)
    suffix: str = ".tif"


def tiff(
    *directories: Sequence[Tag], pixels: bytes = b"", below: Sequence[Sequence[Tag]] = (), next_is: int | None = None
) -> bytes:
    """Write a TIFF, its directories one behind the other; those `below` aren't in the chain and come first."""
    data = bytearray(b"II*\0\0\0\0\0" + pixels)
    for tags in below:
        _directory(data, tags)
    link = 4
    for tags in directories:
        data[link : link + 4] = struct.pack("<I", len(data))
        link = _directory(data, tags)
    if next_is is not None:
        data[link : link + 4] = struct.pack("<I", next_is)
    return bytes(data)


def _directory(data: bytearray, tags: Sequence[Tag]) -> int:
    """Append a directory; give the place of its link to the next one."""
    start = len(data)
    link = start + 2 + 12 * len(tags)
    behind = bytearray()
    data += struct.pack("<H", len(tags))
    for code, kind, count, value in sorted(tags, key=lambda tag: tag[0]):
        if isinstance(value, bytes):
            place = link + 4 + len(behind)
            behind += value
            data += struct.pack("<HHII", code, kind, count, place)
        else:
            data += struct.pack("<HHII", code, kind, count, value)
    data += b"\0\0\0\0" + behind
    return link


def plane(side: int = 16, *, at: int = 8, compression: int = 1, **more: Tag) -> list[Tag]:
    """The tags of a grey 8-bit image of one strip."""
    tags: dict[int, Tag] = {
        256: (256, 4, 1, side),
        257: (257, 4, 1, side),
        258: (258, 3, 1, 8),
        259: (259, 3, 1, compression),
        262: (262, 3, 1, 1),
        273: (273, 4, 1, at),
        277: (277, 3, 1, 1),
        278: (278, 4, 1, side),
        279: (279, 4, 1, side * side),
    }
    tags.update({tag[0]: tag for tag in more.values()})
    return list(tags.values())


def text(content: str | bytes) -> Tag:
    """The tag ImageDescription."""
    data = (content.encode() if isinstance(content, str) else content) + b"\0"
    return 270, 2, len(data), data


def described(content: str | bytes, count: int = 1, **options: Any) -> bytes:
    """A TIFF of `count` equal planes whose first one has a description."""
    return tiff(plane(text=text(content), **options), *[plane(**options)] * (count - 1), pixels=bytes(256))


def ome(pixels: str = "", tiff_data: str = "<TiffData/>", extra: str = "") -> str:
    """OME-XML of one 16 x 16 image, some of its attributes replaced."""
    given = {"SizeX": "16", "SizeY": "16", "SizeZ": "1", "SizeC": "1", "SizeT": "1", "DimensionOrder": "XYCZT"}
    for part in pixels.split():
        name, value = part.split("=")
        given[name] = value
    attributes = " ".join(f'{name}="{value}"' for name, value in given.items())
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" Type="uint8" {attributes}>{tiff_data}</Pixels></Image>{extra}</OME>'
    )


def _modulo(start: str, end: str, step: str) -> str:
    return (
        '<StructuredAnnotations><XMLAnnotation ID="Annotation:0" Namespace="openmicroscopy.org/omero/dimension/modulo">'
        f'<Value><Modulo><ModuloAlongZ Type="angle" Start="{start}" End="{end}" Step="{step}"/></Modulo></Value>'
        "</XMLAnnotation></StructuredAnnotations>"
    )


def _laughs() -> str:
    entities = "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10 if number else "ha"}">' for number in range(10))
    return f"<!DOCTYPE OME [{entities}]>{ome(extra='<Note>&a9;</Note>')}"


def _tiff_file(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _described(content: str | bytes, count: int = 1, **options: Any) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(described(content, count, **options))


def _overlapping(path: Path) -> None:
    """Directories of 4,000 tags, each two bytes behind the one before, over the same bytes."""
    count = 60_000
    data = bytearray(b"II*\0\x08\0\0\0" + struct.pack("<H", 4000) * (count + 30_000))
    path.write_bytes(data)


def _shared_value(path: Path) -> None:
    """A thousand directories whose strips are all listed by the same 8 MB."""
    numbers, places = 1_000_000, 8 + 256
    shared = bytes(8 * numbers)
    strips: list[Tag] = [(273, 4, numbers, places), (279, 4, numbers, places), (278, 4, 1, 1)]
    tags = [tag for tag in plane() if tag[0] not in (273, 278, 279)]
    path.write_bytes(tiff(*[[*tags, *strips]] * 1000, pixels=bytes(256) + shared))


def _below_each_other(path: Path) -> None:
    """Forty directories, each twice below the one before: 2^40 ways to the last one."""
    head, pixels = 8, bytes(256)
    size = 2 + 12 * 10 + 4 + 8
    start = head + len(pixels)
    nested = [plane(below=(330, 4, 2, struct.pack("<2I", *[start + (number + 1) * size] * 2))) for number in range(40)]
    nested.append(plane(below=(330, 4, 2, struct.pack("<2I", 0, 0))))
    data = tiff(plane(below=(330, 4, 2, struct.pack("<2I", start, start))), pixels=pixels, below=nested)
    path.write_bytes(data)


def _sparse(side: int, strips: int, offset: int, count: int, *, tile: int = 0) -> Callable[[Path], object]:
    """A TIFF of `side` squared, whose parts lie nowhere or all at one place."""

    def write(path: Path) -> None:
        tags = [tag for tag in plane(side, compression=8) if tag[0] not in (273, 278, 279)]
        offsets = np.full(strips, offset, "<u4").tobytes()
        counts = np.full(strips, count, "<u4").tobytes()
        if tile:
            tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, strips, offsets), (325, 4, strips, counts)]
        else:
            tags += [(273, 4, strips, offsets), (278, 4, 1, -(-side // strips)), (279, 4, strips, counts)]
        path.write_bytes(tiff(tags, pixels=bytes(256)))

    return write


def zarr(shape: Sequence[int], chunks: Sequence[int], *, axes: str = "yx", **metadata: Any) -> Callable[[Path], object]:
    """A zipped OME-Zarr without any chunk."""

    def write(path: Path) -> None:
        array = np.broadcast_to(np.uint16(0), shape)
        table = {**ome_zarr.array_metadata(array, list(chunks)), **metadata}
        multiscale = {"axes": [{"name": axis} for axis in axes], "datasets": [{"path": "0"}], "version": "0.4"}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(".zgroup", '{"zarr_format": 2}')
            archive.writestr(".zattrs", json.dumps({"multiscales": [multiscale]}))
            archive.writestr("0/.zarray", json.dumps(table))

    return write


def _zarr_texts(**files: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        zarr((8, 8), (8, 8))(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return write


def _npy(header: str, *, size: int | None = None) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        data = header.encode()
        path.write_bytes(b"\x93NUMPY\x02\0" + struct.pack("<I", len(data) if size is None else size) + data + bytes(64))

    return write


def _grey(shape: Sequence[int], fields: dict[str, str], reason: str) -> Attack:
    def write(path: Path) -> None:
        np.save(path, np.zeros(shape, np.uint8))

    return Attack(write, reason, fields, ".npy")


ATTACKS: dict[str, Attack] = {
    "OME frames": Attack(_described(ome(f"SizeT={HUGE}")), f"OME-XML.* SizeT {HUGE} .*1 directories.*16"),
    "OME channels": Attack(_described(ome(f"SizeC={HUGE}")), f"OME-XML.* SizeC {HUGE} .*1 directories.*16"),
    "OME depth": Attack(_described(ome(f"SizeZ={HUGE}")), f"OME-XML.* SizeZ {HUGE} .*1 directories.*16"),
    "OME planes of a part": Attack(
        _described(ome("SizeT=3", f'<TiffData IFD="0" PlaneCount="{HUGE}"/>'), 3), f"OME-XML.* PlaneCount {HUGE}.*48"
    ),
    "OME planes of a part by their older name": Attack(
        _described(ome("SizeT=3", f'<TiffData NumPlanes="{HUGE}"/>'), 3), f"OME-XML.* PlaneCount {HUGE}.*48"
    ),
    "OME number that is none": Attack(_described(ome("SizeT=2e9")), "OME-XML.* SizeT is '2e9'"),
    "OME number of many digits": Attack(_described(ome(f"SizeT={'9' * 100_000}")), "OME-XML.* SizeT is '9999"),
    "OME negative number": Attack(_described(ome("SizeT=-5")), "OME-XML.* SizeT is '-5'"),
    "OME axes without end": Attack(
        _described(ome(f"DimensionOrder={'T' * 100_000}")), "OME-XML.* DimensionOrder is 'T"
    ),
    "OME parts without end": Attack(
        _described(ome("SizeT=2", "<TiffData/>" * 200_000), 2000), "OME-XML.* PlaneCount 0 .*2000 directories"
    ),
    "OME steps of an axis": Attack(
        _described(ome("SizeZ=2", extra=_modulo("0", "1e12", "1")), 2), "OME-XML.* ModuloAlongZ"
    ),
    "OME steps of no length": Attack(
        _described(ome("SizeZ=2", extra=_modulo("0", "1", "0")), 2), "OME-XML.* ModuloAlongZ"
    ),
    "OME sides": Attack(_described(ome("SizeX=100000000 SizeY=100000000")), "OME-XML.* SizeX 100000000 .* 256 pixels"),
    "OME sides of a directory that has two widths": Attack(
        _tiff_file(
            tiff([*plane(text=text(ome("SizeX=60000 SizeY=60000"))), (256, 4, 1, 1 << 31)], pixels=bytes(256)),
        ),
        "OME-XML.* SizeX 60000 .* 256 pixels",
    ),
    "OME samples": Attack(
        _described(ome("", f'<Channel SamplesPerPixel="{HUGE}"/><TiffData/>')),
        "OME-XML.* SamplesPerPixel is '2000000000'",
    ),
    "entities of XML": Attack(_described(_laughs()), "ImageDescription.*DOCTYPE"),
    "deep XML": Attack(_described("<a>" * 600_000 + "OME>"), "ImageDescription.* 600000 XML tags.*500000"),
    "long XML": Attack(_described("<" + " " * (33 << 20) + "OME>"), "ImageDescription.*bytes.*33554432"),
    "shape of many axes": Attack(
        _described(json.dumps({"shape": [64] * 100_000})), "ImageDescription.* 100000 axes.*32"
    ),
    "shape of a huge axis": Attack(
        _described(json.dumps({"shape": [10**4000, 16]})), "ImageDescription.* side of 1000"
    ),
    "shape of a negative axis": Attack(
        _described(json.dumps({"shape": [-1, 16, 16]})), "ImageDescription.* side of -1"
    ),
    "shape that is none": Attack(_described('{"shape": {"a": 1}}'), "ImageDescription.*no list of whole numbers"),
    "deep JSON": Attack(_described('{"shape": ' + "[" * 1_000_000), "ImageDescription.*malformed JSON"),
    "long JSON": Attack(_described('{"shape": ' + " " * (5 << 20) + "[16, 16]}"), "ImageDescription.*bytes.*4194304"),
    "older shape of many axes": Attack(_described(f"shape=({'64,' * 100_000}1)"), "ImageDescription.*no shape"),
    "shape of more planes": Attack(
        _described(json.dumps({"shape": [HUGE, 16, 16]}), compression=8), "2000000000 planes.*1 directories|cut off"
    ),
    "ImageJ frames": Attack(
        _described(f"ImageJ=1.53\nimages={HUGE}\nframes={HUGE}\n"), f"ImageJ.* {HUGE} planes .*frames={HUGE}.* 1"
    ),
    "ImageJ product": Attack(
        _described("ImageJ=1.53\nslices=100000\nframes=100000\nchannels=9\n", 2, compression=8),
        "ImageJ.* 90000000000 planes",
    ),
    "ImageJ negative": Attack(_described("ImageJ=1.53\nframes=-3\n"), "ImageJ.* frames is '-3'"),
    "directories without end": Attack(_tiff_file(tiff(*[plane()] * 20_000, pixels=bytes(256))), "directories.*10000"),
    "directories of two layouts": Attack(
        _tiff_file(tiff(*[plane(16), plane(12)] * 2500, pixels=bytes(256))), "directories of different layout.*4096"
    ),
    "directories of other files": Attack(
        _described(ome("SizeT=5000", '<TiffData><UUID FileName="b.tif">urn:uuid:1</UUID></TiffData>'), 5000),
        "directories of different layout.*4096",
    ),
    "directories in a circle": Attack(_tiff_file(tiff(plane(), pixels=bytes(256), next_is=264)), ""),
    "directories over each other": Attack(_overlapping, "has .* allowed are|cut off"),
    "directories below each other": Attack(_below_each_other, "SubIFDs"),
    "directories below without end": Attack(
        _tiff_file(tiff(plane(below=(330, 4, 500_000, struct.pack("<I", 8) * 500_000)), pixels=bytes(256))),
        "directories.*10000|cut off|has .* tags",
    ),
    "numbers that directories share": Attack(_shared_value, "numbers in tags.*2000000"),
    "numbers that lie outside": Attack(
        _tiff_file(tiff(plane(strips=(273, 4, 2**32 - 1, 8)), pixels=bytes(256))), "cut off"
    ),
    "bytes in tags": Attack(
        _tiff_file(tiff(*[plane(blob=(50839, 7, 4 << 20, 8))] * 100, pixels=bytes(4 << 20))), "bytes in tags"
    ),
    "planes of a MetaMorph stack": Attack(
        _tiff_file(
            tiff(plane(a=(33628, 4, 3000, 8), b=(33629, 5, 3000, 8)), pixels=bytes(24_256)),
        ),
        "MetaMorph",
    ),
    "sparse tiles": Attack(_sparse(120_000, 58 * 58, 0, 0, tile=2080), "13880 MiB, but only 0 bytes.*200 times"),
    "tiles at one place": Attack(_sparse(120_000, 58 * 58, 8, 200, tile=2080), "13880 MiB, but only 200 bytes"),
    "strips at one place": Attack(_sparse(120_000, 3000, 8, 200), "13733 MiB, but only 200 bytes"),
    "chunks of one pixel": Attack(zarr((16_000, 8000), (1, 1)), "128000000 chunks", suffix=".zarr.zip"),
    "no chunk": Attack(zarr((1 << 17, 1 << 17), (1024, 1024)), "32768 MiB, but only [0-9]+ bytes", suffix=".zarr.zip"),
    "planes of a Zarr": Attack(
        zarr((10**12, 4, 4), (1, 4, 4), axes="tyx"), "10.* (chunks|planes)|MiB", suffix=".zarr.zip"
    ),
    "metadata of an array": Attack(
        _zarr_texts(**{"0/zarr.json": " " * (40 << 20)}),
        "zarr.json has more than the 4194304 bytes",
        suffix=".zarr.zip",
    ),
    "header of an array": Attack(
        _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62},)}}"), "damaged", {}, ".npy"
    ),
    "product of sides": Attack(
        _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"), "damaged", {}, ".npy"
    ),
    "header without end": Attack(_npy("(" * 5000, size=2**32 - 1), "header.*bytes|damaged", {}, ".npy"),
    "channels over and over": _grey(
        (2048, 2048, 1), {"channels": ",".join("0" * 300)}, "field channels.* 300 channels.*64"
    ),
    "channel of many digits": _grey((16, 16), {"channels": "9" * 5000}, "field channels"),
    "cuts without end": _grey((16, 16), {"cuts": "9" * 5000}, "field cuts"),
}


def main(path: Path, fields: dict[str, str]) -> dict[str, Any]:
    """Read a file as a job does; give its shape, or the error."""
    from redis_consumer.errors import ConsumerError
    from redis_consumer.job import Job
    from redis_consumer.segmentation.frames import open_frames

    job = Job("predict:1", {"input_file_name": f"uploads/{path.name}", **fields})
    try:
        _ = job.scale, job.cuts, job.field_size, job.model, job.label
        with open_frames(path, job, LIMITS, takes_parts=True) as frames:
            shape = _read_parts(path, job) if frames is None else frames.shape
            for _ in frames.parts() if frames is not None else ():
                pass
    except ConsumerError as error:
        return {"kind": type(error).__name__, "message": str(error)}
    return {"shape": shape}


def _read_parts(path: Path, job: Any) -> tuple[int, ...]:
    from redis_consumer.segmentation.large_image import open_large

    with open_large(path, job, LIMITS) as image:
        _, height, width, _ = image.shape
        for row in range(0, height, 2048):
            for column in range(0, width, 2048):
                image.read(0, (slice(row, min(row + 2048, height)), slice(column, min(column + 2048, width))))
        return image.shape


def serve() -> None:
    """Read the file that each line names, in a process of its own with the libraries loaded; print what came of it."""
    for module in ("tensorstore", "tifffile", "imagecodecs", "PIL.Image", "redis_consumer.segmentation.large_image"):
        importlib.import_module(module)

    for line in sys.stdin:
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
            path, fields = json.loads(line)
            found = main(Path(path), fields)
            used = resource.getrusage(resource.RUSAGE_SELF)
            _say({**found, "peak_mb": used.ru_maxrss >> 10, "cpu_s": used.ru_utime + used.ru_stime})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            _say({"status": status})


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
