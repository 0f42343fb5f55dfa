"""The doctor checks the models that jobs can use."""

from __future__ import annotations

from redis_consumer.cli.workers.doctor import FAILED, OK, UNAVAILABLE, _look, named_models
from redis_consumer.errors import ModelNotFound, StorageUnavailable
from redis_consumer.settings import Settings


def test_only_the_model_for_nuclei_by_default() -> None:
    assert named_models(Settings()) == [("NUCLEAR_MODEL", "NuclearSegmentation:6")]


def test_each_model_once_with_detection_on() -> None:
    settings = Settings(label_detect_enabled=True, scale_detect_enabled=True, phase_model="CytoplasmSegmentation:5")
    assert named_models(settings) == [
        ("NUCLEAR_MODEL", "NuclearSegmentation:6"),
        ("CYTOPLASM_MODEL", "CytoplasmSegmentation:5"),
        ("TISSUE_MODEL", "TissueNuclei:1"),
        ("LABEL_DETECT_MODEL", "LabelDetection:1"),
        ("SCALE_DETECT_MODEL", "ScaleDetection:1"),
    ]


def test_what_does_not_answer_is_told_from_what_is_wrong() -> None:
    def away() -> tuple[str, str]:
        raise StorageUnavailable("no reply")

    def wrong() -> tuple[str, str]:
        raise ModelNotFound("no model")

    found = [_look("x", check).outcome for check in (away, wrong, lambda: (OK, "fine"))]
    assert found == [UNAVAILABLE, FAILED, OK]
