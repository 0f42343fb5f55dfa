"""Where the scale of a job comes from, and when its objects have an odd size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from redis_consumer.errors import InvalidJob, ModelNotFound
from redis_consumer.job import Job, found_earlier, given_by_producer
from redis_consumer.models.card import Card
from redis_consumer.options import ScaleOptions
from redis_consumer.segmentation.frames import Frames
from redis_consumer.segmentation.scale import ScaleChoice, SizeCheck, found_scale, given_scale

CARD = Card(pixel_size_um=0.5, object_diameter_px=30)
OPTIONS = ScaleOptions()
UNKNOWN = Frames.of(np.zeros((1, 8, 8, 1), np.float32))


def of_pixels(y_um: float, x_um: float) -> Frames:
    return replace(UNKNOWN, pixel_size_um=x_um if x_um == y_um else None, pixel_yx_um=(y_um, x_um))


def find(
    frames: Frames, card: Card = CARD, *, detected: float | None = None, diameter_px: float | None = None
) -> ScaleChoice:
    return found_scale(frames, card, OPTIONS, lambda _: detected, lambda _: diameter_px)


def test_a_scale_of_the_producer_is_taken() -> None:
    chosen = given_scale(Job("", {"scale": "0.5"}), None, OPTIONS)
    assert chosen == ScaleChoice(0.5, "job")
    assert chosen.fields == {"scale_from": "job"}


def test_a_scale_of_an_earlier_attempt_keeps_its_source() -> None:
    job = Job("", {"scale": "0.5", "scale_from": "object_diameter_px", "object_diameter_px": "60"})
    assert given_scale(job, CARD, OPTIONS) == ScaleChoice(0.5, "object_diameter_px")


def test_the_diameter_of_objects_sets_the_scale() -> None:
    assert given_scale(Job("", {"object_diameter_px": "24"}), CARD, OPTIONS) == ScaleChoice(1.25, "object_diameter_px")
    assert given_scale(Job(""), CARD, OPTIONS) is None


@pytest.mark.parametrize(
    ("fields", "card", "message"),
    [
        ({"scale": "1", "object_diameter_px": "24"}, CARD, "both given"),
        ({"object_diameter_px": "24"}, Card(), "has no object_diameter_px; give field scale"),
        ({"object_diameter_px": "24"}, None, "has no object_diameter_px; give field scale"),
        ({"object_diameter_px": "2"}, CARD, "makes a scale of 15, which is out of range; allowed are 0.1 to 10"),
        ({"object_diameter_px": "-2"}, CARD, "give a number above 0"),
        ({"object_diameter_px": "wide"}, CARD, "can't be read"),
    ],
)
def test_what_makes_no_scale_is_refused(fields: dict[str, str], card: Card | None, message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        given_scale(Job("", fields), card, OPTIONS)


def test_the_size_of_pixels_comes_before_detection_and_estimate() -> None:
    assert find(of_pixels(0.125, 0.125), detected=2, diameter_px=10) == ScaleChoice(0.25, "pixel_size")


@pytest.mark.parametrize(
    ("frames", "words"),
    [(of_pixels(0.5, 0.25), "not square (0.5 x 0.25 um)"), (of_pixels(0.001, 0.001), "0.001 um makes 0.002")],
)
def test_odd_pixels_are_not_used_and_named(frames: Frames, words: str) -> None:
    chosen = find(frames, diameter_px=60)
    assert (chosen.scale, chosen.source) == (0.5, "estimate")
    assert words in chosen.problem
    assert find(frames).source == "default"


def test_a_detected_scale_comes_before_an_estimate() -> None:
    assert find(UNKNOWN, detected=2, diameter_px=10) == ScaleChoice(2, "detection")


def test_an_estimate_says_the_diameter() -> None:
    chosen = find(UNKNOWN, diameter_px=60)
    assert chosen.fields == {"scale": "0.5", "scale_from": "estimate", "estimated_diameter_px": "60"}


def test_an_estimate_out_of_range_is_not_used() -> None:
    chosen = find(UNKNOWN, diameter_px=1000)
    assert (chosen.scale, chosen.source) == (1, "default")
    assert "objects of about 1e+03 px make a scale of 0.03" in chosen.problem


def test_a_card_without_sizes_leaves_the_scale_at_1() -> None:
    assert find(of_pixels(0.1, 0.1), Card(), diameter_px=60) == ScaleChoice(1, "default")


def test_a_missing_detection_model_is_made_up_for_by_an_estimate() -> None:
    def missing(_: Frames) -> float:
        raise ModelNotFound("model ScaleDetection:1: not served")

    assert found_scale(UNKNOWN, CARD, OPTIONS, missing, lambda _: 60).source == "estimate"
    with pytest.raises(ModelNotFound):
        found_scale(UNKNOWN, Card(), OPTIONS, missing, lambda _: 60)


def squares(side: int, count: int = 4) -> np.ndarray:
    labels = np.zeros((1, 400, 400, 1), np.int32)
    for number in range(count):
        labels[0, number * 90 : number * 90 + side, :side] = number + 1
    return labels


@pytest.mark.parametrize(("side", "is_odd"), [(10, True), (20, False), (50, False), (80, True)])
def test_objects_far_from_the_cards_size_are_warned_of(side: int, is_odd: bool) -> None:
    sizes = SizeCheck(30, 0.5)
    sizes.add(squares(side))
    assert bool(sizes.warning) is is_odd
    assert not is_odd or "the model is made for about 30 px" in sizes.warning


def test_few_objects_and_other_results_are_not_judged() -> None:
    sizes = SizeCheck(30, 1)
    sizes.add(squares(80, count=2))
    sizes.add([np.zeros((1, 8, 8, 1), np.float32)])
    sizes.add([])
    assert sizes.warning == ""


def test_what_an_attempt_found_is_not_what_the_producer_gave() -> None:
    fields = {"scale": "0.25", "scale_from": "estimate", "estimated_diameter_px": "120", "label": ""}
    job = Job("", fields)
    assert given_by_producer(job) == {"scale": "", "label": ""}
    assert found_earlier(job) == {key: fields[key] for key in ("scale", "scale_from", "estimated_diameter_px")}
    child = Job("", {**fields, "parent": "a"})
    assert given_by_producer(child) == {"scale": "0.25", "scale_from": "estimate", "label": ""}
    assert given_by_producer(Job("", {"scale": "2", "scale_from": "job"})) == {"scale": "2"}


def test_a_result_of_odd_objects_is_poor() -> None:
    y, x = np.mgrid[:60, :90]
    labels = sum(n * (np.hypot(y - 30, x - 20 - 25 * n) < 11) for n in (0, 1, 2)).astype(np.int32)[None, ..., None]
    good, poor = SizeCheck(25, 1.0), SizeCheck(25, 1.0)
    good.add([labels], [0.9 * (labels > 0)])
    poor.add(labels, [0.4 * (labels > 0)])
    assert good.fields == {"quality": "1.00"}
    assert good.warnings == []
    assert poor.fields == {"quality": "0.00"}
    assert poor.warnings[-1].startswith("the quality of this result is poor: 100% of the objects")
    assert SizeCheck(25, 1.0).fields == {}
