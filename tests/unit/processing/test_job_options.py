"""Options of functions that a job sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import testing
from redis_consumer.errors import InvalidJob
from redis_consumer.processing.registry import Functions, job_options

FUNCTIONS = Functions({})
NAMED = {"pre": ["normalize"], "post": ["Deep_Watershed", "fill_holes"]}


def test_declared_options_become_values() -> None:
    fields = {
        "deep_watershed.small_objects_threshold": " 50 ",
        "deep_watershed.interior_threshold": "0.3",
        "deep_watershed.maxima_threshold": "",
        "other.program": "x",
        "scale": "1",
    }
    expected = {"deep_watershed": {"small_objects_threshold": 50, "interior_threshold": 0.3}}
    assert job_options(fields, FUNCTIONS, NAMED) == expected


def test_a_card_lets_jobs_set_others() -> None:
    fields = {
        "deep_watershed.radius": "7",
        "deep_watershed.pixel_expansion": "2",
        "deep_watershed.maxima_algorithm": "x",
    }
    listed = list(fields)
    found = job_options(fields, FUNCTIONS, NAMED, listed)
    assert found == {"deep_watershed": {"radius": 7, "pixel_expansion": 2, "maxima_algorithm": "x"}}


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("deep_watershed.radius", "7", r"field deep_watershed.radius: a job can't set this option; it can set of "
         r"deep_watershed: .*deep_watershed.small_objects_threshold.* per_job of the model's card"),
        ("deep_watershed.color", "7", "a job can't set this option"),
        ("fill_holes.labels", "7", "it can set of fill_holes: none"),
        ("watershed.threshold_abs", "0.1", "watershed doesn't run for this job"),
        ("deep_watershed.fill_holes_threshold", "many", "'many' can't be read; give a whole number"),
        ("deep_watershed.fill_holes_threshold", "1.5", "give a whole number"),
        ("deep_watershed.interior_threshold", "inf", "give a number"),
    ],
)  # fmt: skip
def test_what_a_job_can_not_set_is_refused(field: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidJob, match=reason):
        job_options({field: text}, FUNCTIONS, NAMED)


def test_a_job_with_an_option_has_other_labels() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[4:10, 4:10], image[30:50, 30:50] = 200, 200

    def bright(tiles: Any) -> Any:
        return (tiles > 100).astype(np.float32)

    def run(**fields: Any) -> testing.JobRun:
        return testing.run("image", image, model=bright, postprocess_function="pixelwise", scale="1", **fields)

    assert run(**{"pixelwise.min_size": "30"}).fields["objects"] == "2"
    assert run(**{"pixelwise.min_size": "100"}).fields["objects"] == "1"
    refused = run(**{"pixelwise.colour": "1"})
    assert "InvalidJob: field pixelwise.colour: a job can't set this option" in refused.reason


def test_the_shipped_model_takes_the_option_of_the_page() -> None:
    picture = Path(__file__).parents[3] / "data" / "nuclei.tif"
    all_cells = testing.run("image", picture, scale="0.5")
    some = testing.run("image", picture, scale="0.5", **{"deep_watershed.small_objects_threshold": "300"})  # type: ignore[arg-type]
    assert 0 < int(some.fields["objects"]) < int(all_cells.fields["objects"])
