from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from redis_consumer import processing
from redis_consumer.errors import InvalidImage, InvalidJob, ModelMismatch
from redis_consumer.processing import registry
from redis_consumer.processing.labels import deep_watershed, pixelwise, watershed
from redis_consumer.processing.normalization import (
    histogram_normalization,
    normalize,
    percentile_normalize,
    percentile_threshold,
)
from redis_consumer.processing.registry import apply, get_function

PLUGIN = """
import numpy as np
from redis_consumer.errors import InvalidImage

def double(data, factor=2):
    return data * factor

def count(outputs):
    return np.full((1, 2, 2, 1), len(outputs) if isinstance(outputs, list) else -1)

def flat(data):
    return data[0, ..., 0]

def refuse(data):
    raise InvalidImage("a.tif: too dark; expose it longer")

def stumble(data):
    raise ValueError("three outputs are too many")
"""
POINTS = """
[redis_consumer.preprocess]
Double = my_functions:double
flat = my_functions:flat
refuse = my_functions:refuse
stumble = my_functions:stumble
broken = my_functions:missing

[redis_consumer.postprocess]
count = my_functions:count
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with functions of its own."""
    info = tmp_path / "my_functions-1.dist-info"
    info.mkdir()
    (tmp_path / "my_functions.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-functions\nVersion: 1\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_functions", raising=False)


BATCH = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("process_type", "name", "function"),
    [
        ("pre", "normalize", normalize),
        ("pre", "NORMALIZE", normalize),
        ("pre", "histogram_normalization", histogram_normalization),
        ("pre", "phase_preprocess", histogram_normalization),
        ("pre", "percentile_normalize", percentile_normalize),
        ("pre", "percentile_threshold", percentile_threshold),
        ("post", "deepcell", pixelwise),
        ("post", " Pixelwise ", pixelwise),
        ("post", "watershed", watershed),
        ("post", "deep_watershed", deep_watershed),
    ],
)
def test_names_of_the_contract(process_type: str, name: str, function: object) -> None:
    assert get_function(process_type, name) is function


def test_every_built_in_name_can_be_loaded() -> None:
    for process_type, names in registry.BUILT_IN.items():
        assert all(callable(get_function(process_type, name)) for name in names)


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(InvalidJob, match=r"field preprocess_function: 'x' is unknown; give one of histogram_norm"):
        get_function("pre", "x")


def test_unknown_category() -> None:
    with pytest.raises(ValueError, match="pre or post"):
        get_function("mid", "normalize")


@pytest.mark.usefixtures("plugin")
def test_other_packages_offer_functions() -> None:
    assert np.array_equal(apply("pre", ["double"], BATCH), BATCH * 2)
    assert np.array_equal(apply("pre", ["DOUBLE"], BATCH, {"double": {"factor": 3}}), BATCH * 3)


@pytest.mark.usefixtures("plugin")
def test_their_names_are_listed() -> None:
    with pytest.raises(InvalidJob, match=r"count, deep_watershed"):
        get_function("post", "x")


@pytest.mark.usefixtures("plugin")
def test_a_broken_package_is_named() -> None:
    with pytest.raises(InvalidJob, match=r"can't be imported from my_functions:missing"):
        get_function("pre", "broken")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("outputs", "seen"), [([BATCH], -1), ([BATCH, BATCH], 2), (BATCH, -1)])
def test_they_get_an_array_for_one_output_and_a_list_for_several(outputs: list[np.ndarray], seen: int) -> None:
    assert apply("post", ["count"], outputs)[0, 0, 0, 0] == seen


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "part"),
    [("flat", r"function flat: gave \(16, 16\)"), ("stumble", "function stumble: three outputs are too many")],
)
def test_their_mistakes_name_the_function(name: str, part: str) -> None:
    with pytest.raises(ModelMismatch, match=part):
        apply("pre", [name], BATCH)


@pytest.mark.usefixtures("plugin")
def test_errors_of_ours_pass_unchanged() -> None:
    with pytest.raises(InvalidImage, match=r"^a\.tif: too dark"):
        apply("pre", ["refuse"], BATCH)


@pytest.mark.parametrize("names", [[], [""], [" ", ""]])
def test_no_names_change_nothing(names: list[str]) -> None:
    assert apply("pre", names, BATCH) is BATCH


def test_several_functions_run_in_order() -> None:
    expected = normalize(histogram_normalization(BATCH))
    assert np.array_equal(apply("pre", ["histogram_normalization", "normalize"], BATCH), expected)


def test_unknown_options_name_the_function() -> None:
    with pytest.raises(ModelMismatch, match=r"function pixelwise: .*colour"):
        apply("post", ["pixelwise"], BATCH, {"pixelwise": {"colour": 3}})


def disk() -> list[np.ndarray]:
    rows, columns = np.mgrid[:64, :64]
    distance = np.clip(1 - np.hypot(rows - 30, columns - 30) / 15, 0, 1).astype(np.float32)[np.newaxis, ..., np.newaxis]
    return [distance, (distance > 0).astype(np.float32)]


def test_deep_watershed_gets_all_outputs_and_its_options() -> None:
    labels = apply("post", ["deep_watershed"], disk(), {"deep_watershed": {"radius": 5}})
    assert labels.shape == (1, 64, 64, 1)
    assert np.unique(labels).tolist() == [0, 1]


def test_pixelwise_gets_the_first_output() -> None:
    classes = np.concatenate([np.zeros_like(disk()[1]), disk()[1], 1 - disk()[1]], axis=-1)
    labels = apply("post", ["deepcell"], [classes, disk()[0]])
    assert np.unique(labels).tolist() == [0, 1]


def test_too_few_outputs_are_a_mismatch() -> None:
    with pytest.raises(ModelMismatch, match="function watershed"):
        apply("post", ["watershed"], [BATCH])
    with pytest.raises(ModelMismatch, match="gave no outputs"):
        apply("post", ["pixelwise"], [])


def test_the_package_gives_functions_where_modules_have_the_same_name() -> None:
    assert "redis_consumer.processing.normalization" in sys.modules
    assert processing.normalize is normalize
    assert processing.phase_preprocess is histogram_normalization
    assert all(callable(getattr(processing, name)) for name in processing.__all__)
