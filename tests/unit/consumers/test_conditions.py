from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from redis_consumer.consumers import Consumer, ImageFileConsumer, conditions
from redis_consumer.processing import percentile_normalize
from redis_consumer.settings import Settings


def test_every_setting_that_is_recorded_exists_and_none_is_a_secret() -> None:
    secrets = {name.upper() for name, field in Settings.model_fields.items() if SecretStr in _types(field.annotation)}
    assert len(secrets) >= 5
    assert {name.lower() for name in conditions.SETTINGS} <= set(Settings.model_fields)
    assert not secrets & set(conditions.SETTINGS)
    assert set(conditions.SETTINGS) >= conditions.DECIDE_BY_BEING_GIVEN


def _types(annotation: Any) -> set[Any]:
    parts = getattr(annotation, "__args__", ())
    return {annotation}.union(*map(_types, parts)) if parts else {annotation}


def test_every_model_and_function_that_a_setting_names_is_recorded() -> None:
    named = {name.upper() for name in Settings.model_fields if name.endswith(("_model", "_postprocess"))}
    assert named - set(conditions.SETTINGS) == {"MULTIPLEX_MODEL"}  # its newer name is


def test_the_model_server_is_told_by_what_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SERVER", "oips://secret-host:8001")
    assert conditions.model_server_kind() == "oips"


def test_settings_are_plain_values() -> None:
    assert json.loads(json.dumps(conditions.settings_now()))["given"] == []


def test_our_own_code_is_told_by_version_and_other_by_its_file() -> None:
    class Counter(Consumer):
        pass

    assert conditions.origin(ImageFileConsumer)["distribution"] == "kiosk-redis-consumer"
    other = conditions.origin(Counter)
    assert other["distribution"] is None
    assert len(other["source_sha256"]) == 64


def test_options_are_those_in_effect() -> None:
    assert conditions.options_of(percentile_normalize, {"low": 2.0}) == {"low": 2.0, "high": 99.8}
    assert conditions.options_of(abs, {}) == {}
