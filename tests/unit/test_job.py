from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job, JobStatus, ModelId


def job(**fields: str) -> Job:
    return Job("predict:a.tif:1", fields)


def test_fields_become_typed_values() -> None:
    values = job(
        input_file_name="uploads/ab.tif", original_name="HeLa.tif", model_name="Nuclei", model_version="3",
        scale="0.5", label="2", cuts="4", field_size="41", channels="0,", preprocess_function="normalize",
        postprocess_function="pixelwise, watershed", status="new",
    )  # fmt: skip
    assert values.input_file_name == "uploads/ab.tif"
    assert values.original_name == "HeLa.tif"
    assert values.model == ModelId("Nuclei", 3)
    assert (values.scale, values.label, values.cuts, values.field_size) == (0.5, 2, 4, 41)
    assert values.channels == (0, None)
    assert values.preprocess_functions == ("normalize",)
    assert values.postprocess_functions == ("pixelwise", "watershed")
    assert not values.is_final


def test_empty_fields_mean_their_defaults() -> None:
    values = job(input_file_name="uploads/ab.tif")
    assert values.original_name == "ab.tif"
    assert values.model is None
    assert (values.scale, values.label, values.cuts, values.field_size) == (None, None, 0, 61)
    assert values.channels is None
    assert values.preprocess_functions == ()


def test_a_label_of_99_is_none() -> None:
    assert job(label="99").label is None


@pytest.mark.parametrize("status", ["done", "failed"])
def test_done_and_failed_are_final(status: str) -> None:
    assert job(status=status).is_final


@pytest.mark.parametrize(
    ("name", "text", "attribute"),
    [
        ("scale", "big", "scale"),
        ("scale", "-1", "scale"),
        ("scale", "nan", "scale"),
        ("scale", "inf", "scale"),
        ("label", "nucleus", "label"),
        ("cuts", "x", "cuts"),
        ("field_size", "0", "field_size"),
        ("dimension_order", "CZ", "dimension_order"),
        ("dimension_order", "XXY", "dimension_order"),
        ("input_file_name", " ", "input_file_name"),
    ],
)
def test_a_bad_field_is_named(name: str, text: str, attribute: str) -> None:
    with pytest.raises(InvalidJob, match=f"field {name}"):
        getattr(job(**{name: text}), attribute)


@pytest.mark.parametrize("name", ["../secret", "a/b", ".hidden", "a\\b"])
def test_a_model_name_stays_below_the_models_folder(name: str) -> None:
    with pytest.raises(InvalidJob, match="model_name"):
        _ = job(model_name=name, model_version="1").model


def test_a_model_name_is_no_longer_than_a_folders() -> None:
    assert ModelId.of("m" * 255, 1).name == "m" * 255
    for name in ("m" * 256, "日" * 100):
        with pytest.raises(InvalidJob, match=r"model_name: .{20,60} is longer than 255 bytes"):
            ModelId.of(name, 1)


def test_a_model_version_is_one_that_servers_can_count() -> None:
    assert ModelId.of("Nuclei", str(2**63 - 1)).version == 2**63 - 1
    with pytest.raises(InvalidJob, match="model_version: is above"):
        ModelId.of("Nuclei", str(2**63))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("latest", ModelId("Nuclei")),
        ("stable", ModelId("Nuclei", label="stable")),
        ("v1.2-rc_3", ModelId("Nuclei", label="v1.2-rc_3")),
        ("-3", ModelId("Nuclei")),
    ],
)
def test_a_model_version_may_be_a_label(text: str, model: ModelId) -> None:
    assert job(model_name="Nuclei", model_version=text).model == model


@pytest.mark.parametrize("text", ["1.5", "a b", "../x", "é", "x" * 65])
def test_a_model_version_is_a_whole_number_or_a_label(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a whole number nor a label"):
        _ = job(model_name="Nuclei", model_version=text).model


def test_a_label_is_shown_in_place_of_the_number() -> None:
    assert str(ModelId("Nuclei", label="stable")) == "Nuclei:stable"


@pytest.mark.parametrize(("text", "version"), [("Nuclei:3", 3), ("Nuclei", 0), ("Nuclei:-1", 0)])
def test_a_setting_names_a_model(text: str, version: int) -> None:
    assert ModelId.parse(text) == ModelId("Nuclei", version)


def test_a_status_reads_as_its_text() -> None:
    assert f"{JobStatus.SAVING_RESULTS}" == "saving-results"


@given(
    st.dictionaries(st.sampled_from(["scale", "label", "cuts", "channels", "model_name", "model_version"]), st.text())
)
def test_any_text_gives_a_value_or_our_own_error(fields: dict[str, str]) -> None:
    values = job(**fields)
    for name in ("scale", "label", "cuts", "channels", "model"):
        with contextlib.suppress(InvalidJob):
            getattr(values, name)


@pytest.mark.parametrize("name", ["preprocess_function", "postprocess_function"])
def test_functions_named_over_and_over_are_refused(name: str) -> None:
    def read(count: int) -> int:
        job = Job("predict:1", {name: "normalize," * count})
        return len(job.preprocess_functions) + len(job.postprocess_functions)

    assert read(64) == 64
    with pytest.raises(InvalidJob, match=f"field {name}: names 65 functions, allowed are 64; "):
        read(65)
