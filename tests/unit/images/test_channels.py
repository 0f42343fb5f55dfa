from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel, Channels, channel_named, choose, combine, look
from redis_consumer.images.tiff import open_tiff

THREE = Channels((channel_named("Phase contrast"), channel_named("DAPI"), channel_named("GFP")), (), "CYX (3, 8, 8)")
PLAIN = Channels((Channel(), Channel()))
COLOUR = Channels((Channel("red"), Channel("green"), Channel("blue")), ((0, 1, 2),))


@pytest.mark.parametrize(
    "name",
    [
        "BF",
        "Brightfield",
        "Bright-field",
        "TL Brightfield",
        "Phase",
        "phase contrast",
        "DIC",
        "T-PMT",
        "Trans",
        "Ch3-TD",
    ],
)
def test_names_of_transmitted_light(name: str) -> None:
    assert channel_named(name).is_transmitted


@pytest.mark.parametrize("name", ["DAPI", "", "GFP", "pHH3", "Phalloidin", "Alexa 568", "BFP", "TLR4", "DiI"])
def test_names_of_other_light(name: str) -> None:
    assert not channel_named(name).is_transmitted


def test_the_file_can_say_it_otherwise() -> None:
    assert channel_named("Camera 1", "", "Transmitted").is_transmitted
    assert channel_named("Camera 1", "Brightfield", "").is_transmitted
    assert not channel_named("Camera 1", "Fluorescence", "Epifluorescence").is_transmitted


@pytest.mark.parametrize(
    ("named", "channels", "takes", "picks", "text"),
    [
        (None, THREE, 1, ((1,),), "1 DAPI, the first that does not show transmitted light of 0 Phase contrast, 1 DAPI"),
        (None, PLAIN, 1, ((0,),), "0, the first of 0, 1"),
        (None, THREE, None, ((0,), (1,), (2,)), "0 Phase contrast, 1 DAPI, 2 GFP, all"),
        (None, PLAIN, 2, ((0,), (1,)), "0, 1, all"),
        (None, Channels((Channel(),)), 1, ((0,),), "0, the only one"),
        ((2,), THREE, 1, ((2,),), "2 GFP, from channels"),
        (("dapi",), THREE, 1, ((1,),), "1 DAPI, from channels"),
        ((0, None), THREE, 1, ((0,),), "0 Phase contrast, from channels"),
        ((None, 0), THREE, 1, ((0,),), "0 Phase contrast, from channels"),
        ((0, None, None), THREE, 1, ((0,),), "0 Phase contrast, from channels"),
        ((0, None), PLAIN, 2, ((0,), ()), "0, zeros, from channels"),
        ((None, 1), PLAIN, 2, ((), (1,)), "zeros, 1, from channels"),
        ((0, None, None), PLAIN, 2, ((0,), ()), "0, zeros, from channels"),
        ((1, 1), PLAIN, 2, ((1,), (1,)), "1, 1, from channels"),
        (("GFP", 1), THREE, 2, ((2,), (1,)), "2 GFP, 1 DAPI, from channels"),
    ],
)
def test_channels_for_a_model(named: Any, channels: Channels, takes: int | None, picks: Any, text: str) -> None:
    choice = choose(named, channels, "a.tif", takes=takes)
    assert choice.picks == picks
    assert choice.text.startswith(text)


def test_a_channel_can_have_a_number_as_its_name() -> None:
    channels = Channels((Channel("561"), Channel("488")))
    assert (channels.index_of(488, "a"), channels.index_of(1, "a"), channels.index_of("561", "a")) == (1, 1, 0)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (3, r"^a.tif: field channels asks for channel 3, but the image has 3 \(0 Phase contrast, 1 DAPI, 2 GFP\)"),
        ("Cy5", r"asks for channel Cy5, but .* dimension_order\)$"),
    ],
)
def test_a_missing_channel_is_named_with_those_that_exist(wanted: Any, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        choose((wanted,), THREE, "a.tif")


def test_a_name_of_two_channels_is_refused() -> None:
    with pytest.raises(InvalidImage, match="2 channels have this name"):
        Channels((Channel("DAPI"), Channel("dapi"))).index_of("DAPI", "a")


GREY = np.random.default_rng(0).integers(1, 99, (1, 8, 9)).astype(np.float32)
FLAT = np.full_like(GREY, 7)


@pytest.mark.parametrize(
    ("samples", "picks", "text"),
    [
        ((GREY, GREY, GREY), ((0,),), "grey, 0 red, 1 green, 2 blue are equal"),
        ((FLAT, FLAT, GREY), ((2,),), "2 blue, the only one of 0 red, 1 green, 2 blue with signal"),
        ((FLAT, GREY, 2 * GREY), ((0, 1, 2),), "grey, the mean of 0 red, 1 green, 2 blue"),
        ((FLAT, FLAT, FLAT), ((0,),), "grey"),
    ],
)
def test_the_pixels_decide_which_sample_of_a_colour_is_used(samples: Any, picks: Any, text: str) -> None:
    pixels = np.stack(samples, axis=-1)
    choice = choose(None, COLOUR, "a.png", takes=1)
    assert choice.seen == (0, 1, 2)
    decided = choice.decided(look(iter([pixels[:, :4], pixels[:, 4:]]), 3), "a.png")
    assert decided.picks == picks
    assert decided.text.startswith(text)
    expected = samples[2] if picks == ((2,),) else np.mean(samples, axis=0)
    np.testing.assert_allclose(combine(pixels, decided.picks)[..., 0], expected, rtol=1e-6)


def test_a_channel_without_signal_is_refused_with_the_list() -> None:
    choice = choose((1,), THREE, "a.tif", takes=1)
    with pytest.raises(
        InvalidImage, match="channel 1 DAPI has no signal, all its pixels are 7; the channels are 0 Phase"
    ):
        choice.decided(look([FLAT[..., np.newaxis]], 1), "a.tif")


def test_no_look_at_a_single_channel() -> None:
    assert choose(None, Channels((Channel(),)), "a", takes=1).seen == ()


def test_a_worker_can_require_that_channels_are_named() -> None:
    with pytest.raises(InvalidImage, match=r"has channels 0, 1, and the job names none \(CHANNELS_REQUIRED\)"):
        choose(None, PLAIN, "a", takes=1, is_required=True)
    colour = choose(None, COLOUR, "a", takes=1, is_required=True)
    assert colour.decided(look([np.stack([GREY] * 3, -1)], 3), "a").picks == ((0,),)
    with pytest.raises(InvalidImage, match="CHANNELS_REQUIRED"):
        colour.decided(look([np.stack([FLAT, GREY, GREY], -1)], 3), "a")
    assert choose((0,), PLAIN, "a", takes=1, is_required=True).picks == ((0,),)


def test_zeros_and_means() -> None:
    planes = np.stack([GREY, 3 * GREY], axis=-1)
    made = combine(planes, ((1,), (), (0, 1), (0,)))
    np.testing.assert_array_equal(made, np.stack([3 * GREY, 0 * GREY, 2 * GREY, GREY], axis=-1))


def test_ome_names_channels(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["BF", "DAPI"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((2, 8, 9), np.uint8), photometric="minisblack", metadata=metadata)
    with open_tiff(tmp_path / "a.ome.tif", "a") as source:
        assert source.channels == (Channel("BF", True), Channel("DAPI"))


def test_imagej_names_channels(tmp_path: Path) -> None:
    labels = ["c:1/2 t:1/3 - DAPI", "c:2/2 t:1/3 - Phase"] * 3
    pixels = np.zeros((3, 2, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "TCYX", "Labels": labels})
    with open_tiff(tmp_path / "a.tif", "a") as source:
        assert source.channels == (Channel("DAPI"), Channel("Phase", True))


def test_the_order_of_the_job_can_say_that_names_are_of_another_axis(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["BF", "DAPI"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((2, 8, 9), np.uint8), photometric="minisblack", metadata=metadata)
    with open_tiff(tmp_path / "a.ome.tif", "a") as source:
        assert len(source.placed("BXY", "a").all_channels) == 1
        assert source.placed("CXY", "a").all_channels.listed() == "0 BF, 1 DAPI"
