"""Defines the sizes of a view and the places of its tiles. It imports no numpy, since the web process uses it."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass, field
from typing import Any

#: Side of a tile in pixels.
TILE_PX = 512
#: Bytes of a value, by the types that tiles have. All are little-endian.
VALUE_BYTES = {"uint8": 1, "uint16": 2, "uint32": 4, "float32": 4}
#: An entry of the index: offset of a tile in the file, and number of its bytes.
ENTRY = struct.Struct("<QI")
#: Files of a view, besides those of its layers, ``<layer>.tif``.
FACTS, VIEW, THUMBNAIL = "facts.json", "view.json", "thumbnail.png"
#: Names of layers.
IMAGE, LABELS, VALUES, POINTS = "image", "labels", "values", "points"


@dataclass(frozen=True)
class TileLevel:
    """One size of an image. The first level is the image itself, each further one has half the sides.

    Attributes:
        width: columns.
        height: rows.
    """

    width: int
    height: int

    @property
    def rows(self) -> int:
        """Number of tiles along y."""
        return -(-self.height // TILE_PX)

    @property
    def cols(self) -> int:
        """Number of tiles along x."""
        return -(-self.width // TILE_PX)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows * self.cols


def levels_of(width: int, height: int) -> tuple[TileLevel, ...]:
    """Return the levels of an image, down to one that is a single tile.

    >>> [(level.width, level.height) for level in levels_of(1300, 600)]
    [(1300, 600), (650, 300), (325, 150)]
    """
    levels = [TileLevel(width, height)]
    while levels[-1].tiles > 1:
        levels.append(TileLevel(-(-levels[-1].width // 2), -(-levels[-1].height // 2)))
    return tuple(levels)


@dataclass(frozen=True)
class ViewLayer:
    """A layer of a view: a file of tiles, and the index of them.

    Attributes:
        name: ``image``, ``labels``, ``labels_2`` and so on, ``values`` and so on for results that are no labels, or
            ``points``.
        dtype: type of its values, one of `VALUE_BYTES`; empty for points.
        width: columns of the image.
        height: rows of the image.
        t: number of times.
        z: number of planes; a layer with 1 has the same tiles for each plane.
        channels: number of channels.
        max_label: the largest label of a label image, else 0.
        count: number of points, else 0.
    """

    name: str
    dtype: str
    width: int
    height: int
    t: int = 1
    z: int = 1
    channels: int = 1
    max_label: int = 0
    count: int = 0
    levels: tuple[TileLevel, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", levels_of(self.width, self.height))

    @classmethod
    def of(cls, table: dict[str, Any]) -> ViewLayer:
        """Return the layer that `as_table` describes."""
        return cls(**table)

    def as_table(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        table = asdict(self)
        del table["levels"]
        return table

    @property
    def tiles_a_plane(self) -> int:
        """Number of tiles of all levels of one plane of one channel."""
        return sum(level.tiles for level in self.levels)

    @property
    def planes(self) -> int:
        """Number of planes, over times, planes of a stack and channels."""
        return self.t * self.z * self.channels

    def plane_of(self, t: int, z: int, channel: int) -> int:
        """Return the number of a plane: channels are the fastest, then z, then t.

        A result of one time or one plane has it for every t or z of the image.

        Raises:
            IndexError: there is none.
        """
        if self.name != IMAGE:
            t, z = (0 if self.t == 1 else t), (0 if self.z == 1 else z)
        for number, count, axis in ((t, self.t, "t"), (z, self.z, "z"), (channel, self.channels, "c")):
            if not 0 <= number < count:
                raise IndexError(f"{axis} is {number}, layer {self.name} has 0 to {count - 1}")
        return (t * self.z + z) * self.channels + channel

    def place_of(self, plane: int, level: int, row: int, col: int) -> int:
        """Return the number of a tile in the index.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= level < len(self.levels):
            raise IndexError(f"level is {level}, layer {self.name} has 0 to {len(self.levels) - 1}")
        size = self.levels[level]
        if not (0 <= row < size.rows and 0 <= col < size.cols):
            raise IndexError(
                f"level {level} of layer {self.name} has {size.rows} rows and {size.cols} columns of tiles"
            )
        before = sum(each.tiles for each in self.levels[:level])
        return plane * self.tiles_a_plane + before + row * size.cols + col
