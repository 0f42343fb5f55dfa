"""The settings are those of the contract, with its defaults, checked and frozen."""

from __future__ import annotations

import os
import socket

import pytest
from pydantic import SecretStr, ValidationError

from redis_consumer.settings.kinds import BUCKET_SCHEMES
from redis_consumer.settings.settings import MASK, Settings, allowed_values
from redis_consumer.storage import keys

#: Contract, section 7: every variable that has a fixed default, [23] where the versions differ.
CONTRACT = {
    "QUEUE": "predict",
    "CONSUMER_TYPE": "image",
    "SEGMENTATION_QUEUE": "predict",
    "INTERVAL": 10,
    "REDIS_HOST": "redis-master",
    "REDIS_PORT": 6379,
    "REDIS_TIMEOUT": 3,
    "EMPTY_QUEUE_TIMEOUT": 5,
    "DO_NOTHING_TIMEOUT": 0.5,
    "EXPIRE_TIME": 3600,
    "METADATA_EXPIRE_TIME": 30,
    "TF_HOST": "tf-serving",
    "TF_PORT": 8500,
    "TF_TENSOR_NAME": "image",
    "TF_TENSOR_DTYPE": "DT_FLOAT",
    "TF_MAX_BATCH_SIZE": 64,
    "TF_MIN_MODEL_SIZE": 128,
    "GRPC_TIMEOUT": 30,
    "GRPC_BACKOFF": 3,
    "MAX_RETRY": 5,
    "DP_HOST": "data-processing",
    "DP_PORT": 8080,
    "CLOUD_PROVIDER": "gke",
    "AWS_S3_BUCKET": "default-bucket",
    "GKE_BUCKET": "default-bucket",
    "STORAGE_BUCKET": "s3://default-bucket",
    "STORAGE_MAX_BACKOFF": 60,
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "DEBUG": False,
    "LOG_LEVEL": "DEBUG",
    "SCALE_DETECT_ENABLED": False,
    "LABEL_DETECT_ENABLED": False,
    "SCALE_DETECT_MODEL": "ScaleDetection:1",
    "LABEL_DETECT_MODEL": "LabelDetection:1",
    "SCALE_DETECT_SAMPLE": 3,
    "LABEL_DETECT_SAMPLE": 3,
    "SCALE_RESHAPE_SIZE": 216,
    "LABEL_RESHAPE_SIZE": 216,
    "MIN_SCALE": 0.1,
    "MAX_SCALE": 10,
    "NUCLEAR_MODEL": "NuclearSegmentation:6",
    "PHASE_MODEL": "PhaseCytoSegmentation:0",
    "CYTOPLASM_MODEL": "CytoplasmSegmentation:5",
    "TRACKING_MODEL": "NuclearTrackingInf:6",
    "TRACKING_SEGMENT_MODEL": "panoptic:3",
    "TRACKING_POSTPROCESS_FUNCTION": "retinanet",
    "CUTS": 0,
    "DRIFT_CORRECT_ENABLED": False,
    "NORMALIZE_TRACKING": True,
    "NEIGHBORHOOD_SCALE_SIZE": 30,
    "MAX_DISTANCE": 50,
    "TRACK_LENGTH": 8,
    "DIVISION": 0.9,
    "BIRTH": 0.99,
    "DEATH": 0.99,
    "CALIBAN_MODEL": "NuclearTrackingInf:6",
    "NEIGHBORHOOD_ENCODER": "NuclearTrackingNE:6",
    "APPEARANCE_DIM": 32,
    "CROP_MODE": "resize",
    "CALIBAN_NORM": True,
    "MAX_IMAGE_HEIGHT": 2048,
    "MAX_IMAGE_WIDTH": 2048,
    "MAX_IMAGE_FRAMES": 60,
    "MULTIPLEX_MODEL": "MultiplexSegmentation:9",
    "MESMER_MODEL": "MultiplexSegmentation:9",
    "MESMER_COMPARTMENT": "whole-cell",
    "POLARIS_MODEL": "SpotDetection:3",
    "POLARIS_THRESHOLD": 0.95,
    "POLARIS_CLIP": False,
    "POLARIS_SCALE": 0.38,
}


@pytest.mark.parametrize("name", CONTRACT)
def test_default_is_the_contracts(name: str) -> None:
    assert getattr(Settings(), name.lower()) == CONTRACT[name]


def test_worker_is_named_after_host_and_process() -> None:
    assert Settings().hostname == f"{socket.gethostname()}-{os.getpid()}"


def test_every_setting_is_described() -> None:
    assert [setting.name for setting in Settings().describe() if not setting.description] == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().queue = "track"


def test_building_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "track")
    assert Settings().queue == "predict"


@pytest.mark.parametrize("text", ["true", "True", "1", "YES", "on", " true "])
def test_switch_on(text: str) -> None:
    assert Settings.model_validate({"SCALE_DETECT_ENABLED": text}).scale_detect_enabled is True


@pytest.mark.parametrize("text", ["false", "0", "No", "OFF"])
def test_switch_off(text: str) -> None:
    assert Settings.model_validate({"NORMALIZE_TRACKING": text}).normalize_tracking is False


def test_queues_are_lower_case() -> None:
    settings = Settings(queue="Predict", segmentation_queue="SEG")
    assert (settings.queue, settings.segmentation_queue) == ("predict", "seg")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_PORT", "0"),
        ("REDIS_PORT", "65536"),
        ("REDIS_PORT", "6379a"),
        ("GRPC_TIMEOUT", "0"),
        ("GRPC_TIMEOUT", "nan"),
        ("MAX_IMAGE_HEIGHT", "0"),
        ("MAX_RETRY", "-1"),
        ("DIVISION", "1.1"),
        ("NUCLEAR_MODEL", "NuclearSegmentation"),
        ("NUCLEAR_MODEL", "a/b:1"),
        ("NUCLEAR_MODEL", "../x:1"),
        ("NUCLEAR_MODEL", "Model:la test"),
        ("HOSTNAME", "a:b"),
        ("QUEUE", "two words"),
        ("TF_TENSOR_DTYPE", "float"),
        ("RESULT_URLS", "secret"),
        ("CROP_MODE", "fit"),
        ("STORAGE_BUCKET", "bucket"),
        ("STORAGE_BUCKET", "ftp://bucket"),
        ("STORAGE_BUCKET", "s3://user:pw@bucket"),
        ("MODEL_SERVER", "ftp://host:8500"),
        ("MODEL_SERVER", "tfs://user:pw@host:8500"),
        ("SIGNED_URL_EXPIRE_S", "604801"),
        ("MIN_SCALE", "11"),
        ("MAX_SCALE", "0.5"),
        ("NUCLEAR_MODEL", "m" * 256 + ":1"),
        ("AWS_ENDPOINT_URL", "http://user:pw@minio:9000"),
        ("AWS_ENDPOINT_URL", "http://user:p/w@minio:9000"),
        ("MODEL_SERVER", "localhost:8500"),
        ("AWS_ENDPOINT_URL", "localhost:9000"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_wrong_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE_BUCKET", "S3://Images"),
        ("STORAGE_BUCKET", "file:///data/@cells"),
        ("STORAGE_BUCKET", "memory://"),
        ("MODEL_SERVER", "onnx://"),
        ("AWS_ENDPOINT_URL", "https://minio:9000"),
        ("SIGNED_URL_EXPIRE_S", "604800"),
        ("MIN_SCALE", "10"),
    ],
)
def test_odd_but_right_value_is_taken(name: str, value: str) -> None:
    assert str(getattr(Settings.model_validate({name: value}), name.lower())).startswith(value)


def test_known_buckets_are_those_that_can_be_opened() -> None:
    assert BUCKET_SCHEMES == keys.SCHEMES


def test_smallest_scale_follows_the_largest() -> None:
    assert Settings(max_scale=4).min_scale == 0.25


def test_caliban_model_follows_the_tracking_model() -> None:
    assert Settings(tracking_model="T:1").caliban_model == "T:1"


def test_mesmer_model_follows_its_older_name() -> None:
    assert Settings(multiplex_model="M:2").mesmer_model == "M:2"


def test_bucket_of_amazon_by_older_names() -> None:
    assert Settings(cloud_provider="aws", aws_s3_bucket="cells").storage_bucket_url == "s3://cells"


def test_bucket_of_google_by_older_names() -> None:
    assert Settings(gke_bucket="cells").storage_bucket_url == "gs://cells"


def test_bucket_url_wins_over_older_names() -> None:
    assert Settings(storage_bucket="az://a/b", gke_bucket="cells").storage_bucket_url == "az://a/b"


def test_model_server_by_older_names() -> None:
    assert Settings(tf_host="tf", tf_port=1).model_server_url == "tfs://tf:1"


def test_model_server_url_wins_over_older_names() -> None:
    assert Settings(tf_host="tf", model_server="onnx://").model_server_url == "onnx://"


@pytest.mark.parametrize("text", ["", "specify_me"])
def test_key_that_nobody_gave_is_none(text: str) -> None:
    assert Settings(aws_access_key_id=SecretStr(text)).aws_access_key_id is None


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, "DEBUG"),
        ({"DEBUG": "false"}, "INFO"),
        ({"DEBUG": "yes"}, "DEBUG"),
        ({"DEBUG": "1", "LOG_LEVEL": "error"}, "ERROR"),
    ],
)
def test_older_debug_switch_decides_the_log_level(given: dict[str, str], level: str) -> None:
    assert Settings.model_validate(given).log_level == level


def test_secrets_are_masked() -> None:
    settings = Settings.model_validate({"AWS_SECRET_ACCESS_KEY": "geheim"})
    values = {setting.name: setting.value for setting in settings.describe()}
    assert values["AWS_SECRET_ACCESS_KEY"] == MASK
    assert "geheim" not in repr(settings)


def test_given_values_are_told_from_defaults() -> None:
    settings = Settings(tracking_model="T:1")
    assert settings.is_given("TRACKING_MODEL")
    assert not settings.is_given("CALIBAN_MODEL")


def test_choices_are_named() -> None:
    assert allowed_values("RESULT_URLS") == "one of public, signed"
