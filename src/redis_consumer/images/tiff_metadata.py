"""Compares the numbers in the metadata of a TIFF file with the file, before a library uses them."""

from __future__ import annotations

import json
import re
from math import isfinite, prod
from xml.etree import ElementTree

from redis_consumer.errors import InvalidImage
from redis_consumer.images.tiff_chain import Chain

#: Planes that metadata may name for each directory of the file: an acquisition that was stopped lacks the last ones.
MAX_PLANES_A_DIRECTORY = 16
#: How many times the pixels of the smallest directory the images of OME-XML may be, all together.
MAX_PLACES = 1 << 22
#: Bytes of OME-XML, and of any other description; real ones have a few hundred a plane.
MAX_XML_BYTES = 32 << 20
MAX_TEXT_BYTES = 4 << 20
#: Starts and ends of elements in OME-XML.
MAX_XML_TAGS = 500_000
#: Axes of an array, and elements along one of them.
MAX_AXES = 32
MAX_SIDE = 1 << 40
_OLD_SHAPE = re.compile(r"shape=\(?((?:\s*\d{1,13}\s*,?)*)\)?", re.ASCII)
_SHOWN = 30


def check_metadata(chain: Chain, name: str) -> None:
    """Check the descriptions of a TIFF file: OME-XML, JSON by tifffile, text by ImageJ and others.

    Args:
        chain: the directories of the file, with their descriptions.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: one of them names more planes than the file can hold, is too long, or is malformed.
    """
    for data in chain.descriptions.values():
        text = data.decode("utf-8", "replace").strip("\0 \t\r\n")
        is_xml = text.startswith("<") or text.endswith("OME>")
        _check_limit("ImageDescription", "bytes", len(data), MAX_XML_BYTES if is_xml else MAX_TEXT_BYTES, name)
        if is_xml:
            _check_xml(text, name)
        if text.endswith("OME>"):
            _Ome(chain, name).check(text)
        elif text.startswith("{") and '"shape":' in text:
            _check_shape(_json_shape(text, name), name)
        elif text.startswith("shape="):
            _check_shape(_text_shape(text, name), name)


def _check_limit(field: str, what: str, count: int, limit: int, name: str) -> None:
    if count > limit:
        raise InvalidImage(f"{name}: its {field} has {count} {what}, allowed are {limit}; export it with less metadata")


def _check_xml(text: str, name: str) -> None:
    # An entity may stand for any number of others.
    for word in ("<!DOCTYPE", "<!ENTITY"):
        if word in text:
            raise InvalidImage(f"{name}: its ImageDescription holds {word}, which no OME-XML has; export it again")
    _check_limit("ImageDescription", "XML tags", text.count("<"), MAX_XML_TAGS, name)


def _json_shape(text: str, name: str) -> object:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"{name}: its ImageDescription is malformed JSON; export the image again") from error
    return table.get("shape") if isinstance(table, dict) else None


def _text_shape(text: str, name: str) -> object:
    found = _OLD_SHAPE.fullmatch(text[:MAX_TEXT_BYTES]) if len(text) <= MAX_AXES * 16 else None
    if found is None:
        raise InvalidImage(f"{name}: its ImageDescription {text[:_SHOWN]!r} is no shape; export the image again")
    return [int(part) for part in found[1].split(",") if part.strip()]


def _check_shape(shape: object, name: str) -> None:
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise InvalidImage(f"{name}: the shape in its ImageDescription is no list of whole numbers; export it again")
    _check_limit("ImageDescription", "axes in its shape", len(shape), MAX_AXES, name)
    for side in shape:
        if not 0 <= side <= MAX_SIDE:
            raise InvalidImage(
                f"{name}: the shape in its ImageDescription names a side of {str(side)[:_SHOWN]}, "
                f"allowed are 0 to {MAX_SIDE}; export it again"
            )


class _Ome:
    """Checks OME-XML against the number of directories of its file."""

    def __init__(self, chain: Chain, name: str) -> None:
        self._directories = chain.directories
        self._least_px = max(chain.least_px, 1)
        self._most = MAX_PLANES_A_DIRECTORY * chain.directories
        self._name = name
        self._planes = self._places = 0

    def check(self, text: str) -> None:
        try:
            root = ElementTree.fromstring(text)  # noqa: S314 - it has no entities, and no more elements than allowed
        except ElementTree.ParseError:
            return  # tifffile takes it for a plain TIFF
        for element in root:
            if str(element.tag).endswith("Image"):
                for pixels in element:
                    if str(pixels.tag).endswith("Pixels"):
                        self._check_pixels(pixels)
            elif str(element.tag).endswith("StructuredAnnotations"):
                for along in element.iter():
                    if str(along.tag)[:-1].endswith("Along"):
                        self._check_steps(along)

    def _check_pixels(self, pixels: ElementTree.Element) -> None:
        order = pixels.get("DimensionOrder", "")
        if not order.startswith("XY") or sorted(order) != list("CTXYZ"):
            raise self._wrong(f"DimensionOrder is {order[:_SHOWN]!r}", "allowed are XY and an order of C, T and Z")
        width, height = (self._number(pixels, f"Size{axis}", 0, MAX_SIDE) for axis in "XY")
        sizes = {f"Size{axis}": self._number(pixels, f"Size{axis}", 0, MAX_SIDE) for axis in "ZCT"}
        samples = self._samples(pixels)
        largest = max(sizes, key=lambda field: sizes[field])
        planes = sizes["SizeZ"] * sizes["SizeC"] * sizes["SizeT"] // samples
        self._add(planes, f"{largest} {sizes[largest]} makes {planes} planes")
        # tifffile makes a list of as many directories of the smallest size as would hold the image.
        self._places += prod((width, height, *sizes.values())) // self._least_px
        if self._places > MAX_PLACES:
            raise self._wrong(
                f"SizeX {width} and SizeY {height} make it {self._places} times as large as a directory of the file, "
                f"which has {self._least_px} pixels",
                f"allowed are {MAX_PLACES} times",
            )
        for data in pixels:
            if str(data.tag).endswith("TiffData"):
                self._check_data(data)

    def _samples(self, pixels: ElementTree.Element) -> int:
        channels = (child for child in pixels if str(child.tag).endswith("Channel"))
        first = next(channels, None)
        return 1 if first is None else self._number(first, "SamplesPerPixel", 1, 1 << 16, default=1)

    def _check_data(self, data: ElementTree.Element) -> None:
        for field in ("IFD", "FirstZ", "FirstC", "FirstT"):
            self._number(data, field, 0, MAX_SIDE, default=0)
        count = self._number(data, "NumPlanes", 0, MAX_SIDE, default=1 if "IFD" in data.attrib else 0)
        count = self._number(data, "PlaneCount", 0, MAX_SIDE, default=count)
        # Without a number it stands for all directories.
        self._add(count or self._directories, f"PlaneCount {count} of an element TiffData is too much")

    def _add(self, planes: int, fault: str) -> None:
        self._planes += planes
        # The planes of the image once, and those of its parts.
        if planes > self._most or self._planes > 2 * self._most + self._directories:
            raise self._wrong(
                f"{fault}, but the file has {self._directories} directories", f"allowed are {self._most} planes"
            )

    def _check_steps(self, along: ElementTree.Element) -> None:
        """An axis that is divided, e.g. by angles: tifffile lists the steps."""
        if "Start" not in along.attrib:
            return
        try:
            start, end, step = (float(along.get(field, "1")) for field in ("Start", "End", "Step"))
            steps = (end - start) / step
        except (ValueError, ZeroDivisionError):
            steps = float("inf")
        if not isfinite(steps) or steps > self._most:
            tag = str(along.tag).rpartition("}")[2]
            raise self._wrong(
                f"{tag} goes from {along.get('Start', '')[:_SHOWN]!r} to {along.get('End', '')[:_SHOWN]!r} "
                f"by {along.get('Step', '1')[:_SHOWN]!r}",
                f"allowed are {self._most} steps",
            )

    def _number(
        self, element: ElementTree.Element, field: str, least: int, most: int, *, default: int | None = None
    ) -> int:
        text = element.get(field)
        if text is None and default is not None:
            return default
        given = (text or "").strip()
        if not re.fullmatch(r"[0-9]{1,18}", given) or not least <= int(given) <= most:
            raise self._wrong(f"{field} is {given[:_SHOWN]!r}", f"allowed are whole numbers from {least} to {most}")
        return int(given)

    def _wrong(self, fault: str, allowed: str) -> InvalidImage:
        return InvalidImage(f"{self._name}: its OME-XML is wrong, {fault}, {allowed}; export it again")
