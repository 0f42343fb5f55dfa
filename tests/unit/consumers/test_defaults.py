from __future__ import annotations

import json

import pytest

from redis_consumer import settings
from redis_consumer.consumers import defaults
from redis_consumer.options import ArchiveLimits, ImageLimits, LinkingModelOptions, LinkOptions, QueueOptions


def test_the_record_names_the_protocol_of_the_model_server_and_not_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SERVER", "oips://secret-host:8001")
    assert defaults.run_setup({}, []).model_server == "oips"


def test_recorded_settings_are_plain_values() -> None:
    assert json.loads(json.dumps(defaults.recorded_settings()))["given"] == []


def test_without_settings_the_options_of_the_parts_have_their_own_defaults() -> None:
    assert defaults.queue_options() == QueueOptions()
    assert defaults.archive_limits() == ArchiveLimits()
    assert defaults.image_limits() == ImageLimits(max_frames=settings.current().max_image_frames)
    assert defaults.link_options() == LinkOptions()
    assert defaults.linking_model_options() == LinkingModelOptions()


def test_an_assigned_setting_holds_for_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "LEASE_TIMEOUT", 7.0, raising=False)
    monkeypatch.setattr(settings, "MAX_IMAGE_WIDTH", 100, raising=False)
    assert defaults.queue_options().lease_s == 7.0
    assert defaults.image_limits().max_width == 100
