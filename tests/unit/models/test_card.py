from __future__ import annotations

from pathlib import Path

import pytest

from redis_consumer.errors import ModelMismatch
from redis_consumer.models import Card, Tile, packaged_models, read_card
from redis_consumer.models.store import CARD_FILE, PACKAGED

FULL = """
description = "Nuclei in fluorescence images"
license = "Apache-2.0"
pixel_size_um = 0.65
preprocess = ["percentile_normalize"]
postprocess = ["deep_watershed", "fill_holes"]
[tile]
size_px = 512
overlap_px = 64
multiple_px = 16
[functions.deep_watershed]
radius = 10
maxima_threshold = 0.1
is_fast = true
mode = "plain"
"""


def test_a_full_card_is_read() -> None:
    assert read_card(FULL) == Card(
        description="Nuclei in fluorescence images",
        license="Apache-2.0",
        pixel_size_um=0.65,
        preprocess=("percentile_normalize",),
        postprocess=("deep_watershed", "fill_holes"),
        tile=Tile(size_px=512, overlap_px=64, multiple_px=16),
        functions={"deep_watershed": {"radius": 10, "maxima_threshold": 0.1, "is_fast": True, "mode": "plain"}},
    )


def test_everything_may_be_left_out() -> None:
    assert read_card("") == Card()


def test_a_tile_needs_its_size_only() -> None:
    assert read_card("tile = {size_px = 256}").tile == Tile(256)


def test_a_card_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text('description = "ä"', encoding="utf-8")
    assert read_card(path).description == "ä"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 1", "colour is not a key of a card; known keys are description, functions"),
        ("tile = {size_px = 16, stride = 2}", "tile.stride is not a key"),
        ("tile = {overlap_px = 2}", "tile.size_px is missing"),
        ("tile = {size_px = 100, multiple_px = 16}", "a multiple of tile.multiple_px = 16"),
        ("tile = {size_px = 16, multiple_px = 0}", "tile.size_px"),
        ("tile = {size_px = 0}", "tile.size_px"),
        ("tile = {size_px = 16, overlap_px = 16}", "less than tile.size_px = 16"),
        ("tile = {size_px = 1.5}", "tile.size_px is 1.5; wanted is a whole number"),
        ("tile = {size_px = true}", "tile.size_px is True"),
        ("tile = 512", "tile is 512; wanted is a table"),
        ("pixel_size_um = 0", "pixel_size_um is 0; wanted is a number above 0"),
        ("pixel_size_um = inf", "pixel_size_um is inf"),
        ("pixel_size_um = true", "pixel_size_um is True"),
        ('pixel_size_um = "0.5"', "pixel_size_um is '0.5'"),
        ("description = 3", "description is 3; wanted is a text"),
        ('preprocess = "normalize"', "preprocess is 'normalize'; wanted is a list of names"),
        ("postprocess = [1]", "postprocess"),
        ("functions = {watershed = 1}", "functions.watershed is 1"),
        ("functions = {watershed = {radius = [1]}}", r"functions.watershed.radius is \[1\]"),
        ("description = ", "can't be read"),
    ],
)
def test_a_wrong_card_is_refused_by_file_and_key(text: str, problem: str) -> None:
    with pytest.raises(ModelMismatch, match=f"model card models/Nuclei/1/card.toml: .*{problem}"):
        read_card(text, name="models/Nuclei/1/card.toml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["absent", "no text"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "Nuclei" / "1" / "card.toml"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelMismatch, match="model card Nuclei/1/card.toml: it can't be read"):
        read_card(path)


def test_the_packaged_cards_are_right() -> None:
    for model in packaged_models():
        card = read_card(PACKAGED / model.name / str(model.version) / CARD_FILE)
        assert card.description
        assert card.license
