"""Reads OME-TIFFs whose planes are in several files of one folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Array, square_um
from redis_consumer.images.kinds import kind_of
from redis_consumer.images.planes import Planes, Window
from redis_consumer.images.tiff import known_sides, ome_channels, ome_interval_s, ome_size_um
from redis_consumer.images.tiff_chain import MAX_DIRECTORIES, first_description, read_chain
from redis_consumer.images.tiff_planes import open_tiff_planes
from redis_consumer.images.vendors.stacks import check_planes, stacked
from redis_consumer.images.vendors.xml_tree import parse_xml

#: Files of one image, and its planes.
MAX_FILES = 256
MAX_PLANES = 1 << 20
_MAX_NAME_BYTES, _SHOWN_FILES = 255, 5


@dataclass(frozen=True)
class _Run:
    """Planes of an image that follow each other in a file.

    Attributes:
        file: its name; empty for the file with the metadata.
        directory: number of the first one in the file.
        first: number of the first one in the image.
        count: number of planes; 0 for all of the file.
    """

    file: str
    directory: int
    first: int
    count: int


@dataclass(frozen=True)
class ImageFiles:
    """An image of an OME-TIFF.

    Attributes:
        sides: by letter, outermost first, without samples.
        runs: where its planes are.
    """

    sides: dict[str, int]
    runs: tuple[_Run, ...]

    @property
    def files(self) -> list[str]:
        """Names of its files, each once; empty for the one with the metadata."""
        return list(dict.fromkeys(run.file for run in self.runs))


@dataclass(frozen=True)
class SeveralFiles:
    """What the metadata of an OME-TIFF of several files say.

    Attributes:
        images: its images.
        master: name of the file with the metadata, if this one has only pixels; else empty.
        xml: the metadata.
    """

    images: tuple[ImageFiles, ...]
    master: str
    xml: str

    def chosen(self, field: str, name: str) -> ImageFiles:
        """Return the image that a job names by its number, see `redis_consumer.images.fields.choose`.

        Raises:
            SeveralImages, InvalidImage: as `choose`; or this file has only pixels.
        """
        if self.master:
            raise InvalidImage(
                f"{name}: holds only pixels of an OME-TIFF of several files, whose metadata are in {self.master}; "
                f"submit {self.master} with its files beside it, or export it as one OME-TIFF file"
            )
        # As in one file, smaller ones are previews and labels.
        least = prod(self.images[0].sides.values()) if self.images else 0
        images = [image for image in self.images if prod(image.sides.values()) >= least]
        return images[choose([str(number) for number in range(len(images))], field, name)]

    def others(self) -> list[str]:
        """Return the names of all other files of the OME-TIFF."""
        named = dict.fromkeys(file for image in self.images for file in image.files if file)
        return [self.master] if self.master else list(named)


def read_ome_files(path: Path, name: str) -> SeveralFiles | None:
    """Return what an OME-TIFF says of its files; None for any other TIFF, or one whose planes are all in this file.

    Args:
        path: the local TIFF.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: it is cut off, names a file outside its folder, or too many files.
    """
    data = first_description(path, name)
    if b"UUID" not in data or b"OME" not in data:
        return None
    xml = data.decode("utf-8", "replace").strip("\0 \t\r\n")
    try:
        root = parse_xml(xml, name)
    except ElementTree.ParseError:
        return None  # tifffile takes it for a plain TIFF
    master = next((child.get("MetadataFile", "") for child in root if _is(child, "BinaryOnly")), "")
    if master:
        return SeveralFiles((), _checked(master, name), xml)
    own = _Own(root, path.name)
    images = tuple(_image(pixels, own, name) for image in root for pixels in image if _is(pixels, "Pixels"))
    found = SeveralFiles(images, "", xml)
    return found if found.others() or own.is_renamed else None


def other_files(path: Path, name: str, field: str | None = None) -> list[str]:
    """Return the names of the other files that belong to an image; none if it is a whole, or can't be read.

    Args:
        path: the local file of any format.
        name: the user's name for it, for messages.
        field: which of several images, as the job names it; None for the files of all.

    Raises:
        OSError: the local file can't be opened.
    """
    try:
        files = read_ome_files(path, name) if kind_of(path, name) == "TIFF" else None
        if files is None:
            return []
        return files.others() if field is None else [file for file in files.chosen(field, name).files if file]
    except InvalidImage:
        return []  # its reader says why


def has_only_pixels(path: Path) -> bool:
    """Return whether a local file is a part of an OME-TIFF whose metadata are in another file.

    Raises:
        OSError: it can't be opened.
    """
    try:
        files = read_ome_files(path, path.name) if kind_of(path, path.name) == "TIFF" else None
    except InvalidImage:
        return False
    return files is not None and bool(files.master)


@contextmanager
def open_ome_files(files: SeveralFiles, path: Path, name: str, field: str = "") -> Iterator[Planes]:
    """Open an image of an OME-TIFF whose other files are beside it.

    Args:
        files: see `read_ome_files`.
        path: the local TIFF with the metadata.
        name: the user's name for it, for messages.
        field: which of several images; empty for the only one.

    Raises:
        SeveralImages: it has several and none is named.
        InvalidImage: a file is missing, or other planes are in it than the metadata say.
        Exception: if a file is damaged.
    """
    image = files.chosen(field, name)
    missing = [file for file in image.files if not (path.parent / file).exists()]
    if missing:
        raise InvalidImage(
            f"{name}: is one of the {len(image.files)} files of an OME-TIFF, of which {len(missing)} are missing "
            f"({_listed(missing)}); put them into the same folder of the bucket, or export it as one OME-TIFF file"
        )
    with ExitStack() as stack:
        readers: dict[str, Planes] = {}
        directories = 0
        for file in image.files:
            where, shown = (path.parent / file, file) if file else (path, name)
            if kind_of(where, shown) != "TIFF":
                raise InvalidImage(f"{name}: its file {file} is no TIFF; export it as one OME-TIFF file")
            directories += read_chain(where, shown).directories
            if directories > MAX_DIRECTORIES:
                raise InvalidImage(
                    f"{name}: its files have more than {MAX_DIRECTORIES} directories; export fewer planes a file set"
                )
            readers[file] = stack.enter_context(open_tiff_planes(where, shown, is_plain=True))
        yield _Joined(image, readers, name).planes(files.xml)


class _Joined:
    """The planes of an image in several open files."""

    def __init__(self, image: ImageFiles, readers: dict[str, Planes], name: str) -> None:
        first = next(iter(readers.values())).source
        self._readers, self._name = readers, name
        self._samples = first.shape[first.axes.index("S")] if "S" in first.axes else 1
        self._dtype, self._axes = first.dtype, dict(image.sides)
        for file, reader in readers.items():
            source = reader.source
            found = [dict(zip(source.axes, source.shape, strict=True)).get(axis, 1) for axis in "YXS"]
            if found != [self._axes["Y"], self._axes["X"], self._samples] or source.dtype != self._dtype:
                raise InvalidImage(
                    f"{name}: its file {file or name} has planes of {found[0]} x {found[1]} px ({source.dtype}), the "
                    f"metadata say {self._axes['Y']} x {self._axes['X']} ({self._dtype}); export it again"
                )
        self._places = self._placed(image.runs)

    def planes(self, xml: str) -> Planes:
        """Return the image."""
        axes = {axis: side for axis, side in self._axes.items() if side > 1 or axis in "YX"}
        axes |= {"S": self._samples} if self._samples > 1 else {}
        check_planes(axes, len(self._places), self._name)
        planes = stacked(axes, self._dtype, self._read)
        sources = [reader.source for reader in self._readers.values()]
        yx_um = known_sides(*(ome_size_um(xml, axis) for axis in "YX"))
        source = replace(
            planes.source,
            pixel_yx_um=yx_um,
            pixel_size_um=square_um(yx_um),
            spacing_um=ome_size_um(xml, "Z"),
            interval_s=ome_interval_s(xml),
            channels=ome_channels(xml),
            stored_bytes=sum(each.stored_bytes or 0 for each in sources),
            decoder_bytes=max(each.decoder_bytes for each in sources),
            orientation=sources[0].orientation,
            notes=tuple(dict.fromkeys(note for each in sources for note in each.notes)),
        )
        return Planes(source, planes.read)

    def _placed(self, runs: Sequence[_Run]) -> dict[int, tuple[Planes, int]]:
        """Return the file and the number in it of each plane."""
        wanted = prod(side for axis, side in self._axes.items() if axis not in "YX")
        places: dict[int, tuple[Planes, int]] = {}
        for run in runs:
            reader = self._readers[run.file]
            count = prod(reader.source.shape) // (self._axes["Y"] * self._axes["X"] * self._samples)
            planes = run.count or min(count - run.directory, wanted - run.first)
            if run.directory + planes > count or run.first + planes > wanted:
                raise InvalidImage(
                    f"{self._name}: its metadata name planes {run.directory} to {run.directory + planes - 1} of file "
                    f"{run.file or self._name}, which has {count}; export it again"
                )
            places |= {run.first + step: (reader, run.directory + step) for step in range(planes)}
        return places

    def _read(self, index: tuple[int, ...], window: Window) -> Array:
        sides = [side for axis, side in self._axes.items() if axis not in "YX" and side > 1]
        reader, number = self._places[int(np.ravel_multi_index(index, sides)) if sides else 0]
        samples = range(number * self._samples, (number + 1) * self._samples)
        pixels = reader.read(samples, window)
        return pixels if self._samples > 1 else pixels[..., 0]


class _Own:
    """Knows which of the files in OME-XML is the one that holds it."""

    def __init__(self, root: ElementTree.Element, file_name: str) -> None:
        self._uuid = root.get("UUID")
        self._file_name = file_name.casefold()
        named = {each.get("FileName", "") for each in root.iter() if _is(each, "UUID")}
        # Without an identity, a name that is the only one is an earlier name of this file.
        self.is_renamed = self._uuid is None and len(named) == 1 and self._file_name not in map(str.casefold, named)

    def is_own(self, uuid: ElementTree.Element) -> bool:
        """Return whether an element names this file."""
        is_same = self._uuid is not None and (uuid.text or "").strip() == self._uuid.strip()
        return is_same or self.is_renamed or uuid.get("FileName", "").casefold() == self._file_name


def _sides(pixels: ElementTree.Element, name: str) -> dict[str, int]:
    """Return the length of each axis, outermost first; the samples of a pixel are one channel."""
    order = pixels.get("DimensionOrder", "")
    if not order.startswith("XY") or sorted(order) != list("CTXYZ"):
        raise _wrong(name, f"DimensionOrder is {order[:20]!r}")
    sides = {axis: _number(pixels, f"Size{axis}", name) for axis in reversed(order)}
    channel = next((child for child in pixels if _is(child, "Channel")), None)
    samples = 1 if channel is None else _number(channel, "SamplesPerPixel", name, 1)
    if min(*sides.values(), samples) < 1 or sides["C"] % samples:
        raise _wrong(name, f"sizes are {sides} with {samples} samples")
    return {**sides, "C": sides["C"] // samples}


def _image(pixels: ElementTree.Element, own: _Own, name: str) -> ImageFiles:
    sides = _sides(pixels, name)
    outer = [axis for axis in sides if axis not in "YX"]
    if prod(sides[axis] for axis in outer) > MAX_PLANES:
        raise _wrong(name, f"sizes are {sides}")
    runs = tuple(
        _run(child, {axis: sides[axis] for axis in outer}, own, name) for child in pixels if _is(child, "TiffData")
    )
    image = ImageFiles(sides, runs)
    if len(image.files) > MAX_FILES:
        raise InvalidImage(
            f"{name}: is an OME-TIFF of {len(image.files)} files, allowed are {MAX_FILES}; export it as one file"
        )
    return image


def _run(data: ElementTree.Element, outer: dict[str, int], own: _Own, name: str) -> _Run:
    uuid = next((child for child in data if _is(child, "UUID")), None)
    file = "" if uuid is None or own.is_own(uuid) else _checked(uuid.get("FileName", ""), name)
    first = [_number(data, f"First{axis}", name, 0) for axis in outer]
    if any(start >= side for start, side in zip(first, outer.values(), strict=True)):
        raise _wrong(name, f"a plane is at {dict(zip(outer, first, strict=True))}")
    count = _number(data, "PlaneCount", name, _number(data, "NumPlanes", name, int("IFD" in data.attrib)))
    place = int(np.ravel_multi_index(first, list(outer.values())))
    return _Run(file, _number(data, "IFD", name, 0), place, count)


def _is(element: ElementTree.Element, tag: str) -> bool:
    return str(element.tag).rpartition("}")[2] == tag


def _number(element: ElementTree.Element, field: str, name: str, default: int | None = None) -> int:
    text = element.get(field)
    if text is None and default is not None:
        return default
    given = (text or "").strip()
    if not (given.isascii() and given.isdecimal() and len(given) <= 7):
        raise _wrong(name, f"{field} is {given[:20]!r}")
    return int(given)


def _checked(file: str, name: str) -> str:
    """Return the name of another file, which must be in the same folder."""
    is_plain = not set("/\\\0") & set(file) and file not in ("", ".", "..")
    if not is_plain or len(file.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise InvalidImage(
            f"{name}: its OME-XML names the file {file[:60]!r}, which is not in the same folder; export it again, with "
            "all files in one folder"
        )
    return file


def _wrong(name: str, fault: str) -> InvalidImage:
    return InvalidImage(f"{name}: its OME-XML is wrong, {fault}; export it again")


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN_FILES]) + (" …" if len(files) > _SHOWN_FILES else "")
