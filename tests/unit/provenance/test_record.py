from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from redis_consumer.consumers import Consumer, ImageFileConsumer
from redis_consumer.processing import percentile_normalize
from redis_consumer.provenance import record
from redis_consumer.settings import Settings


def test_every_setting_that_is_recorded_exists_and_none_is_a_secret() -> None:
    secrets = {name.upper() for name, field in Settings.model_fields.items() if SecretStr in _types(field.annotation)}
    assert len(secrets) >= 5
    assert {name.lower() for name in record.SETTINGS} <= set(Settings.model_fields)
    assert not secrets & set(record.SETTINGS)
    assert set(record.SETTINGS) >= record.DECIDE_BY_BEING_GIVEN


def _types(annotation: Any) -> set[Any]:
    parts = getattr(annotation, "__args__", ())
    return {annotation}.union(*map(_types, parts)) if parts else {annotation}


def test_every_model_and_function_that_a_setting_names_is_recorded() -> None:
    named = {name.upper() for name in Settings.model_fields if name.endswith(("_model", "_postprocess"))}
    assert named - set(record.SETTINGS) == {"MULTIPLEX_MODEL"}  # its newer name is


def test_our_own_code_is_told_by_version_and_other_by_its_file() -> None:
    class Counter(Consumer):
        pass

    assert record.origin(ImageFileConsumer)["distribution"] == "kiosk-redis-consumer"
    other = record.origin(Counter)
    assert other["distribution"] is None
    assert len(other["source_sha256"]) == 64


def test_options_are_those_in_effect() -> None:
    assert record.options_of(percentile_normalize, {"low": 2.0}) == {"low": 2.0, "high": 99.8}
    assert record.options_of(abs, {}) == {}
