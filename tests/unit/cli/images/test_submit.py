"""Options become the fields of a job."""

from __future__ import annotations

import pytest
import typer

from redis_consumer.cli.images.submit import job_fields


def test_model_becomes_two_fields() -> None:
    assert job_fields("Nuclear:3", {}, []) == {"model_name": "Nuclear", "model_version": "3"}


def test_options_become_fields() -> None:
    assert job_fields(None, {"scale": 0.5, "channels": None}, ["cuts=2", "note=a=b"]) == {
        "scale": "0.5",
        "cuts": "2",
        "note": "a=b",
    }


@pytest.mark.parametrize("model", ["Nuclear", "Nuclear:", ":1", "Nuclear:new label"])
def test_model_without_name_or_version(model: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME:VERSION"):
        job_fields(model, {}, [])


@pytest.mark.parametrize("field", ["cuts", "=2"])
def test_field_without_key_or_value(field: str) -> None:
    with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
        job_fields(None, {}, [field])
