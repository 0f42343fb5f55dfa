"""Reads the card of a model, which says how to use it, and chooses the model of a job by the kind of its image.

A card is a file ``card.toml`` beside the model::

    description = "Nuclei in fluorescence images"
    license = "Apache-2.0"
    pixel_size_um = 0.65
    object_diameter_px = 30
    preprocess = ["percentile_normalize"]
    postprocess = ["deep_watershed"]
    per_job = ["deep_watershed.radius"]
    [tile]
    size_px = 512
    overlap_px = 64
    multiple_px = 16
    [functions.deep_watershed]
    radius = 10

All keys are optional. The fields of a job override the card of its model.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.job import ModelId

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Option = str | int | float | bool


@dataclass(frozen=True)
class Tile:
    """How images are cut for a model.

    Attributes:
        size_px: side of the square tiles.
        overlap_px: pixels that neighbouring tiles share.
        multiple_px: the sides of tiles must be multiples of this number.
    """

    size_px: int
    overlap_px: int = 0
    multiple_px: int = 1


@dataclass(frozen=True)
class Card:
    """How to use a model.

    Attributes:
        description: what the model does, a text for users.
        license: SPDX expression of its licence.
        pixel_size_um: side of a pixel in the training images; None if unknown.
        object_diameter_px: usual diameter of objects in the training images, in pixels; None if unknown.
        preprocess: names of the functions to run before the model, in order.
        postprocess: names of the functions to run after the model, in order.
        tile: how to cut images; None for a model that gets whole images.
        functions: options of functions, by the functions' names.
        per_job: options that a job can set besides those that the functions declare, as ``<function>.<option>``.
    """

    description: str = ""
    license: str = ""
    pixel_size_um: float | None = None
    object_diameter_px: float | None = None
    preprocess: tuple[str, ...] = ()
    postprocess: tuple[str, ...] = ()
    tile: Tile | None = None
    functions: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)
    per_job: tuple[str, ...] = ()


def read_card(source: Path | str, *, name: str = "card.toml") -> Card:
    """Read a card and check it.

    Args:
        source: its path, or its text.
        name: name of the card in messages, if `source` is its text.

    Raises:
        ModelMismatch: the card can't be read, or a key is unknown or has an invalid value; the message names file and
            key.
    """
    if isinstance(source, Path):
        name = "/".join(source.parts[-3:])
    try:
        table = tomllib.loads(source.read_text("utf-8") if isinstance(source, Path) else source)
    except (OSError, ValueError) as error:
        raise ModelMismatch(f"model card {name}: it can't be read ({error}); write it as TOML") from error
    return _Reader(name).card(table)


class _Reader:
    """Reads one card. Its errors name the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def card(self, table: dict[str, Any]) -> Card:
        self._refuse_unknown(table, frozenset(Card.__dataclass_fields__), "")
        tile = table.get("tile")
        return Card(
            description=self._text(table.get("description", ""), "description"),
            license=self._text(table.get("license", ""), "license"),
            pixel_size_um=self._optional_number(table, "pixel_size_um"),
            object_diameter_px=self._optional_number(table, "object_diameter_px"),
            preprocess=self._names(table.get("preprocess", []), "preprocess"),
            postprocess=self._names(table.get("postprocess", []), "postprocess"),
            tile=None if tile is None else self._tile(tile),
            functions=self._functions(table.get("functions", {})),
            per_job=self._names(table.get("per_job", []), "per_job"),
        )

    def _tile(self, table: object) -> Tile:
        values = self._table(table, "tile")
        self._refuse_unknown(values, frozenset(Tile.__dataclass_fields__), "tile.")
        if "size_px" not in values:
            raise self._error("tile.size_px is missing; give the side of a tile in pixels")
        tile = Tile(**{key: self._count(value, f"tile.{key}") for key, value in values.items()})
        if tile.size_px < 1 or tile.multiple_px < 1 or tile.size_px % tile.multiple_px:
            raise self._wrong("tile.size_px", tile.size_px, f"a multiple of tile.multiple_px = {tile.multiple_px}")
        if not tile.overlap_px < tile.size_px:
            raise self._wrong("tile.overlap_px", tile.overlap_px, f"less than tile.size_px = {tile.size_px}")
        return tile

    def _functions(self, table: object) -> Mapping[str, Mapping[str, Option]]:
        functions = {}
        for function, options in self._table(table, "functions").items():
            key = f"functions.{function}"
            values = self._table(options, key)
            for option, value in values.items():
                if not isinstance(value, Option):
                    raise self._wrong(f"{key}.{option}", value, "a text, a number, true or false")
            functions[function] = MappingProxyType(values)
        return MappingProxyType(functions)

    def _refuse_unknown(self, table: Mapping[str, Any], known: frozenset[str], prefix: str) -> None:
        for key in table:
            if key not in known:
                names = ", ".join(prefix + name for name in sorted(known))
                raise self._error(f"{prefix}{key} is not a key of a card; known keys are {names}")

    def _table(self, value: object, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a table")
        return value

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def _names(self, value: object, key: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise self._wrong(key, value, "a list of names")
        return tuple(value)

    def _optional_number(self, table: Mapping[str, Any], key: str) -> float | None:
        return self._number(table[key], key) if key in table else None

    def _number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._wrong(key, value, "a number above 0")
        return float(value)

    def _count(self, value: object, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(key, value, "a whole number from 0")
        return value

    def _wrong(self, key: str, seen: object, wanted: str) -> ModelMismatch:
        return self._error(f"{key} is {seen!r}; wanted is {wanted}")

    def _error(self, problem: str) -> ModelMismatch:
        return ModelMismatch(f"model card {self._name}: {problem}")


@dataclass(frozen=True)
class ModelChoices:
    """Models and functions by the kind of an image (contract, section 7).

    Attributes:
        models: model of each label, ``name:version``.
        postprocess: function that follows the model of each label.
        preprocess: functions before a model that has no card.
        options: keyword arguments for functions by name, for a model that has no card.
        given: keyword arguments for functions by name that override those of a card.
        or_packaged: takes the model of a label; returns the model to run.
    """

    models: Mapping[int, str]
    postprocess: Mapping[int, str]
    preprocess: tuple[str, ...] = ("histogram_normalization",)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    or_packaged: Callable[[ModelId], ModelId] = lambda model: model

    def model_of(self, label: int | None) -> ModelId:
        """Return the model for a label, and for nuclei if the label is None.

        Raises:
            InvalidJob: there is no such label.
        """
        return self.or_packaged(ModelId.parse(str(_choice(self.models, label or 0))))

    def postprocess_of(self, label: int) -> str:
        """Return the function that follows the model for a label.

        Raises:
            InvalidJob: there is no such label.
        """
        return str(_choice(self.postprocess, label))

    def functions_of(self, model: ModelId) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the functions before and after a model that has no card (contract, section 5.4).

        They are those of its label. A model of no label has none.
        """
        labels = [label for label, name in self.models.items() if ModelId.parse(str(name)) == model]
        if not labels:
            return (), ()
        return self.preprocess, tuple(filter(None, [self.postprocess_of(labels[0])]))


def _choice(choices: Mapping[int, str], label: int) -> str:
    if label not in choices:
        raise InvalidJob(f"field label: {label} is no kind of image; give one of {', '.join(map(str, choices))}")
    return choices[label]
