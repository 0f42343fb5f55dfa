"""What plug-ins call on `TensorFlowServingConsumer`, with real models in-process and on a served address."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer import settings
from redis_consumer.consumers import TensorFlowServingConsumer, defaults
from redis_consumer.errors import InvalidImage, InvalidJob, ModelMismatch, ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.options import TilingOptions
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation.model_client import ModelClient
from redis_consumer.segmentation.predictor import Predictor
from redis_consumer.segmentation.tiling import Tiling
from redis_consumer.serving.base import ModelServer
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.storage import Storage

JOB = "predict:a.tif:1"


@pytest.fixture(params=["onnx", "tfs"])
def server(request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    """Both kinds of model server, behind one interface."""
    if request.param == "onnx":
        yield request.getfixturevalue("onnx_server")
        return
    tfs = TFServingServer(request.getfixturevalue("tf_serving"))
    yield tfs
    tfs.close()


@pytest.fixture
def consumer(redis_client: RedisClient, server: ModelServer, tmp_path: Path) -> TensorFlowServingConsumer:
    return TensorFlowServingConsumer(
        redis_client, Storage(tmp_path.as_uri()), "predict", model_server=server, models=ModelStore(None), name="pod-1"
    )


def image(*shape: int) -> Any:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


def tiling(server: ModelServer, model: ModelId, **options: Any) -> Tiling:
    return Predictor(ModelStore(None), server, TilingOptions(), **options).tiling(model)


def test_grpc_image_adds_a_batch_axis(consumer: TensorFlowServingConsumer) -> None:
    pixels = image(8, 9, 1)
    result = consumer.grpc_image(pixels, "Scaling", "1")
    np.testing.assert_array_equal(result, 2 * pixels[np.newaxis])


def test_grpc_image_gives_a_list_of_the_predictions_in_the_order_of_their_names(
    consumer: TensorFlowServingConsumer,
) -> None:
    result = consumer.grpc_image(image(32, 32, 2), "Convolving", 1)
    assert isinstance(result, list)
    assert [array.shape for array in result] == [(1, 32, 32, 1), (1, 32, 32, 3)]


def test_a_half_precision_model_keeps_pixel_values(consumer: TensorFlowServingConsumer) -> None:
    result = consumer.grpc_image(np.full((4, 4, 1), 0.75, np.float32), "Scaling_f16", 1)
    assert isinstance(result, np.ndarray)
    assert result.max() == 0.375


def test_version_0_is_the_latest(consumer: TensorFlowServingConsumer) -> None:
    result = consumer.grpc_image(np.ones((4, 4, 1), np.float32), "Scaling", 0)
    assert isinstance(result, np.ndarray)
    assert result.max() == -1.5


def test_a_version_must_be_a_whole_number(consumer: TensorFlowServingConsumer) -> None:
    with pytest.raises(ValueError, match="model_version"):
        consumer._get_predict_client("Scaling", "one")


def test_an_unknown_model_is_named(consumer: TensorFlowServingConsumer) -> None:
    with pytest.raises(ModelNotFound, match="Nope"):
        consumer.grpc_image(image(4, 4, 1), "Nope", 1)


def test_a_wrong_number_of_channels_is_named(consumer: TensorFlowServingConsumer) -> None:
    with pytest.raises(ModelMismatch, match=r"has 3 channel\(s\), model Scaling:1 takes 1"):
        consumer.predict(image(1, 8, 8, 3), ModelId("Scaling", 1))


def test_predict_takes_images_of_any_size_to_models_of_a_fixed_one(consumer: TensorFlowServingConsumer) -> None:
    outputs = consumer.predict(image(2, 75, 20, 2), ModelId("Convolving", 1))
    assert [output.shape for output in outputs] == [(2, 75, 20, 1), (2, 75, 20, 3)]


def test_a_plugins_own_grpc_image_is_used(consumer: TensorFlowServingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "grpc_image", lambda img, *_: 7 * img[np.newaxis])
    pixels = image(1, 8, 8, 1)
    np.testing.assert_array_equal(consumer.predict(pixels, ModelId("Scaling", 1))[0], 7 * pixels)


@pytest.mark.parametrize("shape", [(45, 64, 1), (1, 45, 64, 1)])
def test_big_images_go_in_pieces(consumer: TensorFlowServingConsumer, shape: tuple[int, ...]) -> None:
    pixels = image(*shape)
    np.testing.assert_array_equal(consumer.process_big_image("2", pixels, "9", "Scaling", "1"), 2 * pixels)


def test_pieces_have_the_sizes_that_the_card_wants(
    consumer: TensorFlowServingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def grpc_image(img: Any, *_: object) -> Any:
        seen.append(img.shape)
        return img[np.newaxis]

    monkeypatch.setattr(consumer, "grpc_image", grpc_image)
    pixels = image(100, 90, 1)
    np.testing.assert_array_equal(consumer.process_big_image(2, pixels, 61, "NuclearSegmentation", 1), pixels)
    assert seen == [(112, 112, 1)] * 4


def test_pieces_beyond_the_limits_are_refused(
    consumer: TensorFlowServingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_IMAGE_WIDTH", 100, raising=False)
    with pytest.raises(InvalidJob, match="pieces of 100 x 150 px, more than 2048 x 100"):
        consumer.process_big_image(1, image(40, 90, 1), 61, "Scaling", 1)


def test_scale_and_label_are_not_asked_for_while_detection_is_off(consumer: TensorFlowServingConsumer) -> None:
    assert consumer.detect_scale(image(8, 8)) == 1
    assert consumer.detect_label(image(8, 8)) == 0


@pytest.fixture
def _detection(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, model in (("SCALE", "Scaling:1"), ("LABEL", "Scaling:1")):
        monkeypatch.setenv(f"{kind}_DETECT_ENABLED", "true")
        monkeypatch.setenv(f"{kind}_DETECT_MODEL", model)
        monkeypatch.setenv(f"{kind}_RESHAPE_SIZE", "16")


@pytest.mark.usefixtures("_detection")
def test_the_scale_is_what_the_model_says(consumer: TensorFlowServingConsumer) -> None:
    assert consumer.detect_scale(np.full((40, 40, 1), 0.25)) == pytest.approx(0.5)


@pytest.mark.usefixtures("_detection")
def test_a_job_without_scale_gets_the_detected_one_written(consumer: TensorFlowServingConsumer, redis_db: Any) -> None:
    assert consumer.get_image_scale("", np.full((40, 40, 1), 0.25), JOB) == pytest.approx(0.5)
    assert redis_db.hget(JOB, "scale") == "0.5"


@pytest.mark.usefixtures("_detection")
def test_the_label_is_the_class_with_the_largest_sum(consumer: TensorFlowServingConsumer) -> None:
    assert consumer.detect_label(np.ones((40, 40))) == 0


@pytest.mark.parametrize("scale", ["11", "0.05", "x"])
def test_a_scale_beyond_the_limits_is_refused(consumer: TensorFlowServingConsumer, scale: str) -> None:
    with pytest.raises(InvalidJob, match="field scale"):
        consumer.get_image_scale(scale, image(8, 8), JOB)


def test_metadata_has_the_older_form(consumer: TensorFlowServingConsumer) -> None:
    assert consumer.get_model_metadata("Convolving", "1") == [
        {"in_tensor_name": "image", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": "-1,32,32,2"}
    ]


def test_model_input_is_brought_to_channels_last(consumer: TensorFlowServingConsumer) -> None:
    assert consumer.validate_model_input(image(1, 3, 40, 50), "Convolving", 1, "0,2").shape == (1, 40, 50, 2)


@pytest.mark.parametrize(
    ("shape", "channels", "error", "text"),
    [
        ((40, 50, 2), None, ModelMismatch, "has 3 axes"),
        ((1, 40, 50, 3), None, ModelMismatch, "has 3 channels"),
        ((1, 40, 50, 2), "0,5", ModelMismatch, "field channels"),
        ((1, 40, 2049, 2), None, InvalidImage, "40 x 2049 pixels"),
    ],
)
def test_model_input_that_does_not_fit_is_refused(
    consumer: TensorFlowServingConsumer, shape: tuple[int, ...], channels: str | None, error: type, text: str
) -> None:
    with pytest.raises(error, match=text):
        consumer.validate_model_input(np.zeros(shape, np.uint8), "Convolving", 1, channels)


def test_download_image_reads_what_the_bucket_has(consumer: TensorFlowServingConsumer, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 5, 1)))
    consumer.storage.upload_file(tmp_path / "a.npy", "uploads/a.npy")
    assert consumer.download_image("uploads/a.npy").shape == (4, 5, 1)


def test_save_output_uploads_a_zip(consumer: TensorFlowServingConsumer) -> None:
    key, url = consumer.save_output(np.zeros((4, 4, 2)), "folder/HeLa.tif")
    assert key.startswith("output/")
    assert url.endswith(key)
    assert consumer.storage.exists(key)


@pytest.mark.parametrize("name", ["日" * 200 + ".tif", "a\0b.tif", "../..tif"])
def test_save_output_under_an_odd_name(consumer: TensorFlowServingConsumer, name: str) -> None:
    key, _ = consumer.save_output([np.zeros((4, 4, 1))] * 2, name)
    archive = zipfile.ZipFile(io.BytesIO(consumer.storage.read_bytes(key)))
    assert [member.rpartition("_feature_")[2] for member in archive.namelist()] == ["0.tif", "1.tif"]


def test_the_tiling_follows_card_and_settings(onnx_server: OnnxServer) -> None:
    tiled = tiling(onnx_server, ModelId("Convolving", 1)).planned(image(1, 100, 100, 2))
    assert (tiled.plan.tile, len(tiled.plan), tiled.batch_size) == ((32, 32), 16, 64)
    whole = tiling(onnx_server, ModelId("Scaling", 1)).planned(image(1, 100, 512, 1))
    assert (whole.plan.tile, whole.plan.is_whole) == ((100, 512), True)


def test_a_model_with_several_inputs_needs_the_name_of_one(onnx_server: OnnxServer) -> None:
    with pytest.raises(ModelMismatch, match="takes 2 inputs .*TF_TENSOR_NAME"):
        tiling(onnx_server, ModelId("Adding", 1))


def test_settings_may_be_assigned_at_any_time(
    consumer: TensorFlowServingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_SCALE", 3.0, raising=False)
    with pytest.raises(InvalidJob, match="to 3"):
        consumer.get_image_scale("4", image(8, 8), JOB)


def test_the_default_parts_come_from_the_settings(
    redis_client: RedisClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SERVER", "onnx://")
    consumer = TensorFlowServingConsumer(redis_client, Storage(tmp_path.as_uri()), "predict")
    assert isinstance(consumer.model_server, OnnxServer)


def test_retries_of_the_first_call_are_told(onnx_model_dir: Path) -> None:
    told: list[int] = []
    scaling = ModelId("Scaling", 1)
    with serve_models(onnx_model_dir, "--fail-first", "1") as address:
        server = TFServingServer(address, backoff_s=0)
        tiling(server, scaling, on_retry=lambda count, _: told.append(count))
        server.close()
    assert told == [1]


def test_a_client_tells_the_retries_of_metadata(onnx_model_dir: Path) -> None:
    told: list[str] = []
    with serve_models(onnx_model_dir, "--fail-first", "1") as address:
        server = TFServingServer(address, backoff_s=0)
        client = ModelClient(server, ModelId("Scaling", 1), on_retry=lambda _, code: told.append(code))
        assert client.describe_inputs()[0]["in_tensor_name"] == "image"
        server.close()
    assert told == ["UNAVAILABLE"]


def test_metadata_are_believed_for_as_long_as_the_settings_say(
    tf_serving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SERVER", f"tfs://{tf_serving}")
    monkeypatch.setenv("METADATA_EXPIRE_TIME", "0")
    server = defaults.model_server(ModelStore(None))
    first = server.metadata(ModelId("Scaling", 1))
    assert server.metadata(ModelId("Scaling", 1)) is not first
    server.close()


def test_models_are_loaded_before_the_first_job_where_the_settings_say_so(
    consumer: TensorFlowServingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(consumer.model_server, "metadata", lambda model: asked.append(str(model)))
    monkeypatch.setattr(consumer, "_measure_call", lambda _: None)  # it needs real metadata
    consumer._warm_up()
    assert asked == []
    settings.use(settings.Settings(warm_up="Nuclear:1, Other:2"))
    consumer._warm_up()
    assert asked == ["Nuclear:1", "Other:2"]


def test_a_model_that_cannot_be_loaded_yet_stops_no_worker(
    consumer: TensorFlowServingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    settings.use(settings.Settings(warm_up="Unknown:1"))
    consumer._warm_up()
    assert "WARM_UP=Unknown:1: " in caplog.text
