"""What consumers of 2020 and 2023 call, in the forms in which they call it (contract, section 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fakeredis import FakeRedis, FakeServer
from PIL import Image

import redis_consumer
from redis_consumer import consumers, grpc_clients, settings, utils
from redis_consumer.consumers import ImageFileConsumer, TensorFlowServingConsumer, registry
from redis_consumer.errors import SettingsError
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving._pb.tfs_pb2 import PredictResponse
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.storage import Storage
from support.tf_protos import official_class

JOB = "predict:a.tif:1"
RNG = np.random.default_rng(3)


class Older(ImageFileConsumer):
    """Its first lines are those of every consumer of 2020."""

    seen: str | None = None

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        self._redis_hash = redis_hash
        self._redis_values = hvals
        if hvals["status"] in self.finished_statuses:
            return str(hvals["status"])
        type(self).seen = f"{self._redis_hash} {self._redis_values['scale']}"
        self.update_key(self._redis_hash, {"status": self.final_status})
        return self.final_status


@pytest.fixture
def consumer(redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path) -> Older:
    parts: dict[str, Any] = {"model_server": onnx_server, "models": ModelStore(None), "name": "pod-1"}
    return Older(redis_client, Storage(tmp_path.as_uri()), "predict", **parts)


def test_key_and_fields_of_the_job_are_assigned(consumer: Older, redis_db: Any) -> None:
    redis_db.hset(JOB, mapping={"status": "new", "scale": "2", "input_file_name": "uploads/a.tif"})
    redis_db.lpush("predict", JOB)
    consumer.consume()
    assert (Older.seen, redis_db.hget(JOB, "status")) == (f"{JOB} 2", "done")
    assert consumer._redis_hash is None
    assert consumer._redis_values == {}


def test_an_older_consumer_runs_on_a_plain_fakeredis(onnx_server: OnnxServer) -> None:
    """As its authors' own tests do it, without a server of any kind."""
    db = FakeRedis(server=FakeServer(), decode_responses=True)
    db.hset(JOB, mapping={"status": "new", "scale": "3", "input_file_name": "uploads/a.tif"})
    db.lpush("predict", JOB)
    consumer = Older(db, Storage("memory://"), "predict", model_server=onnx_server)
    consumer.consume()
    assert (Older.seen, db.hget(JOB, "status"), db.llen("predict")) == (f"{JOB} 3", "done", 0)


def test_a_script_may_assign_them_without_a_job(consumer: Older, redis_db: Any) -> None:
    consumer._redis_hash, consumer._redis_values = JOB, {"scale": "1"}
    consumer.process(np.ones((1, 8, 8, 1), np.float32), "normalize", "pre")
    assert float(redis_db.hget(JOB, "preprocess_time")) >= 0


@pytest.mark.parametrize("shape", [(8, 9, 1), (1, 8, 9, 1)])
def test_predict_takes_name_and_version(consumer: Older, shape: tuple[int, ...]) -> None:
    pixels = RNG.random(shape, dtype=np.float32)
    expected = 2 * pixels.reshape(1, 8, 9, 1)
    np.testing.assert_array_equal(consumer.predict(pixels, "Scaling", "1"), expected, strict=True)
    np.testing.assert_array_equal(consumer.predict(pixels, model_name="Scaling", model_version=1), expected)
    assert consumer.predict(pixels, "Scaling", 0).min() == pytest.approx(-1.5 * pixels.max())  # type: ignore[union-attr]


def test_predict_with_name_and_version_gives_a_list_of_several_outputs(consumer: Older) -> None:
    outputs = consumer.predict(RNG.random((75, 40, 2), dtype=np.float32), "Convolving", "")
    assert [output.shape for output in outputs] == [(1, 75, 40, 1), (1, 75, 40, 3)]


def test_predict_with_a_model_is_as_it_was(consumer: Older) -> None:
    pixels = RNG.random((1, 8, 9, 1), dtype=np.float32)
    for model in ("Scaling:1", ModelId("Scaling", 1)):
        (output,) = consumer.predict(pixels, model)
        np.testing.assert_array_equal(output, 2 * pixels)


@pytest.mark.parametrize("kind", ["onnx", "tfs"])
def test_metadata_have_the_form_of_the_contract(
    request: pytest.FixtureRequest, redis_client: RedisClient, onnx_server: OnnxServer, kind: str
) -> None:
    server: Any = onnx_server if kind == "onnx" else TFServingServer(request.getfixturevalue("tf_serving"))
    consumer = TensorFlowServingConsumer(redis_client, Storage("memory://"), "predict", model_server=server)
    expected = [{"in_tensor_name": "image", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": "-1,32,32,2"}]
    assert consumer.get_model_metadata("Convolving", 1) == expected
    reply = consumer._get_predict_client("Convolving", 1).get_model_metadata(request_timeout=10)
    inputs = reply["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    assert inputs["image"]["tensorShape"]["dim"][1] == {"size": "32"}
    assert consumer.parse_model_metadata(reply) == consumer.parse_model_metadata(inputs) == expected
    server.close()


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"metadata": {}},
        {"metadata": {"signature_def": {"signatureDef": {}}}},
        {"image": {"dtype": "DT_FLOAT"}},
        {"image": {"tensorShape": {"dim": [{"size": "1"}]}}},
    ],
)
def test_metadata_of_another_form_are_a_key_error(consumer: Older, metadata: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        consumer.parse_model_metadata(metadata)


INPUTS = {"metadata": {"dtype": "DT_HALF", "tensorShape": {"dim": [{"size": "-1"}, {"size": "4"}]}}}
DESCRIBED = [{"in_tensor_name": "metadata", "in_tensor_dtype": "DT_HALF", "in_tensor_shape": "-1,4"}]


class WithMetadata:
    def get_model_metadata(self) -> dict[str, Any]:
        return {"metadata": {"signature_def": {"signatureDef": {"serving_default": {"inputs": INPUTS}}}}}


class WithDescription:
    def describe_inputs(self) -> list[dict[str, str]]:
        return DESCRIBED


class WithList:
    def get_model_metadata(self) -> list[dict[str, str]]:
        return DESCRIBED


@pytest.mark.parametrize("client", [WithMetadata(), WithDescription(), WithList()])
def test_an_own_client_is_asked_for_metadata(consumer: Older, monkeypatch: pytest.MonkeyPatch, client: object) -> None:
    monkeypatch.setattr(consumer, "_get_predict_client", lambda *_: client)
    assert consumer.get_model_metadata("Whatever", 1) == DESCRIBED


def test_an_own_client_that_only_predicts_leaves_metadata_to_the_server(
    consumer: Older, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_get_predict_client", lambda *_: object())
    assert consumer.get_model_metadata("Convolving", 1)[0]["in_tensor_shape"] == "-1,32,32,2"


class Recording:
    """Answers as ``PredictClient`` does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def predict(self, request_data: Any, request_timeout: float = 10) -> dict[str, Any]:
        self.asked += [(each["in_tensor_name"], each["in_tensor_dtype"], request_timeout) for each in request_data]
        return {"prediction": request_data[0]["data"] + 1, "other": request_data[0]["data"]}


@pytest.mark.parametrize(("model", "dtype"), [("Mine", "DT_INT8"), ("Mine_f16", "DT_HALF")])
def test_an_own_client_is_told_name_and_type_of_the_input(
    consumer: Older, monkeypatch: pytest.MonkeyPatch, model: str, dtype: str
) -> None:
    client = Recording()
    monkeypatch.setattr(consumer, "_get_predict_client", lambda *_: client)
    monkeypatch.setattr(settings, "TF_TENSOR_NAME", "picture", raising=False)
    monkeypatch.setattr(settings, "TF_TENSOR_DTYPE", "DT_INT8", raising=False)
    pixels = np.ones((8, 9, 1), np.float32)
    np.testing.assert_array_equal(consumer.grpc_image(pixels, model, "1"), pixels[np.newaxis] + 1)
    assert client.asked == [("picture", dtype, 30.0)]
    np.testing.assert_array_equal(consumer.process_big_image(2, pixels, 3, model, 1), pixels + 1)


def test_predict_asks_an_own_client_alone(consumer: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tests of older consumers do it: the model server knows no such model, or isn't there at all."""
    described = {"in_tensor_name": "i", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": "-1,16,16,1"}
    monkeypatch.setattr(consumer, "get_model_metadata", lambda *_: [described])
    monkeypatch.setattr(consumer, "_get_predict_client", lambda *_: Recording())
    monkeypatch.setattr(consumer, "model_server", None)
    pixels = RNG.random((40, 50, 1), dtype=np.float32)
    np.testing.assert_allclose(consumer.predict(pixels, "Mine", "1"), pixels[np.newaxis] + 1, rtol=1e-6)


def test_a_wrapped_model_runs_wherever_it_is_served(consumer: Older) -> None:
    model = consumer.get_model_wrapper("Scaling:1")
    pixels = RNG.random((5, 8, 9, 1), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(pixels, batch_size=2), 2 * pixels)
    assert (model.input_shape, model.output_names) == ((None, None, None, 1), ["prediction"])
    assert consumer.get_model_wrapper("Convolving:1", batch_size=3).get_batch_size() == 3


@pytest.mark.parametrize(("largest", "size"), [(64, 512), (8, 64)])
def test_batches_of_a_wrapped_model_follow_the_settings(
    consumer: Older, monkeypatch: pytest.MonkeyPatch, largest: int, size: int
) -> None:
    monkeypatch.setattr(settings, "TF_MAX_BATCH_SIZE", largest, raising=False)
    assert consumer.get_model_wrapper("Convolving:1").get_batch_size() == size


def test_an_application_gets_the_model_and_its_arguments(consumer: Older) -> None:
    class App:
        def __init__(self, net: Any, *, kind: str) -> None:
            self.net, self.kind = net, kind

    app = consumer.get_grpc_app("Scaling:1", App, kind="cell")
    assert (app.kind, app.net.input_shape) == ("cell", (None, None, None, 1))


def two_discs() -> Any:
    y, x = np.mgrid[:70, :90]
    return np.maximum(10 - np.hypot(y - 20, x - 20), 0) + np.maximum(10 - np.hypot(y - 45, x - 60), 0)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_application_of_the_settings_finds_cells(consumer: Older, scale: float) -> None:
    def thresholded(outputs: list[Any]) -> Any:
        from scipy import ndimage

        return ndimage.label(outputs[0][0, ..., 0] > 0.2)[0][np.newaxis, ..., np.newaxis]

    image = two_discs()[np.newaxis, ..., np.newaxis].astype(np.float32)
    app = consumer.get_grpc_app("Scaling:1", settings.APPLICATION_CHOICES[0], postprocessing_fn=thresholded)
    labels = app.predict(image, batch_size=2, image_mpp=scale * app.model_mpp)
    assert labels.shape == image.shape
    assert {labels[0, 20, 20, 0], labels[0, 45, 60, 0]} == {1, 2}
    assert labels[0, 60, 10, 0] == 0


class Tiled:
    """Takes tiles of one size, four at most in a call."""

    input_shape = (None, 32, 32, 2)

    def predict(self, tiles: Any, batch_size: int) -> Any:
        assert tiles.shape[1:] == (32, 32, 2)
        assert len(tiles) <= batch_size == 4
        return [tiles, tiles[..., :1]]


def test_an_application_cuts_images_into_the_tiles_of_its_model() -> None:
    app = settings.APPLICATION_CHOICES[1](Tiled(), preprocessing_fn=None, postprocessing_fn=None)
    image = RNG.random((1, 75, 40, 2), dtype=np.float32)
    outputs = app.predict(image)
    np.testing.assert_allclose(outputs[0], image, rtol=1e-6)
    assert outputs[1].shape == (1, 75, 40, 1)
    with pytest.raises(ValueError, match=r"the model takes \(batch, y, x, 2\)"):
        app.predict(np.zeros((1, 75, 40, 3)))


def test_an_application_needs_a_model_of_one_input(consumer: Older) -> None:
    with pytest.raises(ValueError, match="has 2 inputs"):
        consumer.get_grpc_app("Adding:1", settings.APPLICATION_CHOICES[0])


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((1, 40, 50, 2), "YXC"),
        ((1, 2, 40, 50), "CYX"),
        ((40, 50, 2), "YXC"),
        ((2, 40, 50), "CYX"),
        ((1, 2, 40, 2), "YXC"),
    ],
)
def test_the_order_of_dimensions_is_detected(consumer: Older, shape: tuple[int, ...], order: str) -> None:
    assert consumer.detect_dimension_order(np.zeros(shape), "Convolving", 1) == [order]


@pytest.mark.parametrize(
    ("shape", "order"), [((1, 9, 40, 50, 2), "ZYXC"), ((1, 2, 9, 40, 50), "CZYX"), ((1, 9, 2, 40, 50), "ZCYX")]
)
def test_the_order_of_dimensions_of_volumes(
    consumer: Older, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], order: str
) -> None:
    one = {"in_tensor_name": "i", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": "-1,8,32,32,2"}
    monkeypatch.setattr(consumer, "get_model_metadata", lambda *_: [one, one])
    assert consumer.detect_dimension_order([np.zeros(shape)] * 2, "Volumes", 1) == [order, order]
    with pytest.raises(ValueError, match="takes 2 images, not 3"):
        consumer.detect_dimension_order([np.zeros(shape)] * 3, "Volumes", 1)
    with pytest.raises(ValueError, match="has 2 axes"):
        consumer.detect_dimension_order(np.zeros((4, 4)), "Volumes", 1)


@pytest.mark.parametrize("channels", ["0,2", "0,2,", [0, 2], ["0", "2"], (0, 2), np.array([0, 2]), [0, None, 2]])
def test_channels_are_a_text_or_a_list(consumer: Older, channels: Any) -> None:
    image = np.arange(3)[np.newaxis, :, np.newaxis, np.newaxis] * np.ones((1, 3, 40, 50))
    fitted = consumer.validate_model_input(image, "Convolving", 1, channels=channels)
    assert fitted.shape == (1, 40, 50, 2)
    assert fitted[0, 0, 0].tolist() == [0, 2]


@pytest.mark.parametrize("channels", [[0, 5], [0], "0,1,2", [0, "a"], [-1, 0]])
def test_channels_that_do_not_fit_are_a_value_error(consumer: Older, channels: Any) -> None:
    with pytest.raises(ValueError, match="field channels"):
        consumer.validate_model_input(np.zeros((1, 3, 40, 50)), "Convolving", 1, channels)


@pytest.mark.parametrize(
    ("channels", "kept"),
    [(None, (2, 1)), ([[1, 0], [0]], (2, 1)), (["1,0", "0"], (2, 1)), ([[1], None], (1, 1)), ([0], (1, 1))],
)
def test_a_model_of_several_inputs_takes_a_list_of_images(
    consumer: Older, monkeypatch: pytest.MonkeyPatch, channels: Any, kept: tuple[int, int]
) -> None:
    shapes = [f"-1,-1,-1,{count if channels else -1}" for count in kept]
    described = [{"in_tensor_name": "i", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": shape} for shape in shapes]
    monkeypatch.setattr(consumer, "get_model_metadata", lambda *_: described)
    images = [np.zeros((1, 2, 40, 50)), np.zeros((1, 40, 50, 1))]
    fitted = consumer.validate_model_input(images, "Pairs", 1, channels)
    assert [each.shape for each in fitted] == [(1, 40, 50, count) for count in kept]
    with pytest.raises(ValueError, match="takes 1 images|takes 2 images"):
        consumer.validate_model_input(images[:1], "Pairs", 1)
    with pytest.raises(ValueError, match="has 3 lists"):
        consumer.validate_model_input(images, "Pairs", 1, [[0], [0], [0]])


def test_a_model_that_takes_any_rank_takes_every_image(consumer: Older) -> None:
    assert consumer.validate_model_input(np.zeros((3, 4)), "AnyRank", 1).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "shape", "in_2020"),
    [("a.tif", (24, 30), (24, 30, 1)), ("b.tif", (5, 24, 30), (5, 24, 30, 1)), ("a.png", (24, 30, 1), (24, 30, 1))],
)
def test_an_image_has_the_shape_of_its_year(
    consumer: Older, tmp_path: Path, name: str, shape: tuple[int, ...], in_2020: tuple[int, ...]
) -> None:
    (tmp_path / "uploads").mkdir()
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    path = tmp_path / "uploads" / name
    if name.endswith(".png"):
        Image.fromarray(pixels[..., 0]).save(path)
    else:
        tifffile.imwrite(path, pixels)
    image = consumer.download_image(f"uploads/{name}")
    np.testing.assert_array_equal(image, pixels.astype(np.float32), strict=True)
    assert utils.get_image(path).shape == in_2020


@pytest.mark.parametrize("shape", [(1, 30, 30, 4), (30, 30, 4)])
@pytest.mark.parametrize("name", ["pixelwise", "Watershed", "DEEPCELL"])
def test_process_gives_results_without_a_leading_axis_of_1(consumer: Older, shape: tuple[int, ...], name: str) -> None:
    image = RNG.random(shape, dtype=np.float32)
    assert consumer.process(image, name, "post").shape == (30, 30, 1)
    assert consumer.process(np.concatenate([image] * 2) if len(shape) == 4 else image, name, "POST").ndim == len(shape)


def test_functions_before_the_model_take_an_image_without_batch_axis(consumer: Older) -> None:
    image = RNG.random((30, 30, 1), dtype=np.float32)
    result = consumer.preprocess(image, ["", "normalize", "histogram_normalization"], streaming=True)
    assert result.shape == (30, 30, 1)


def test_deep_watershed_takes_all_outputs(consumer: Older) -> None:
    outputs = [two_discs()[np.newaxis, ..., np.newaxis] / 10] * 2
    labels = consumer.postprocess(outputs, ["deep_watershed"], streaming=False)
    assert (labels.shape, labels.max()) == ((70, 90, 1), 2)


@pytest.mark.parametrize(("kind", "name"), [("pre", "nope"), ("nope", "normalize"), ("post", "normalize")])
def test_an_unknown_function_is_a_value_error(consumer: Older, kind: str, name: str) -> None:
    for call in (
        lambda: consumer._get_processing_function(kind, name),
        lambda: consumer.process(np.zeros((1, 4, 4, 1)), name, kind),
    ):
        with pytest.raises(ValueError, match="nope|normalize"):
            call()


def test_a_function_of_the_script_is_found_in_any_case(consumer: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "Halve", lambda image: image / 2)
    assert consumer.process(np.ones((1, 4, 4, 1)), "halve", "post").max() == 0.5
    monkeypatch.setattr(settings, "PROCESSING_FUNCTIONS", {"pre": {}, "post": {"other": np.negative}})
    assert consumer.process(np.ones((2, 4, 4, 1)), "OTHER", "post").max() == -1


@pytest.fixture
def _job(redis_db: Any, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    tifffile.imwrite(tmp_path / "uploads" / "a.tif", np.full((24, 30), 7, np.uint8))
    redis_db.hset(JOB, mapping={"status": "new", "model_name": "Scaling", "model_version": "1", "scale": "1"})
    redis_db.hset(JOB, mapping={"input_file_name": "uploads/a.tif", "preprocess_function": "normalize"})
    redis_db.lpush("predict", JOB)


class OwnSteps(ImageFileConsumer):
    def preprocess(self, image: Any, keys: Any, streaming: bool = False) -> Any:
        assert (image.shape, list(keys)) == ((24, 30, 1), ["normalize"])
        return image + 1

    def predict(self, image: Any, model_name: str, model_version: Any) -> Any:  # type: ignore[override]
        assert (model_name, int(model_version)) == ("Scaling", 1)
        return super().predict(image, model_name, model_version)


class OwnFunction(ImageFileConsumer):
    def _get_processing_function(self, process_type: str, function_name: str) -> Any:
        return lambda image: image + 1


@pytest.mark.usefixtures("_job")
@pytest.mark.parametrize("kind", [OwnSteps, OwnFunction])
def test_steps_that_a_subclass_replaces_are_run(
    redis_client: RedisClient, redis_db: Any, onnx_server: OnnxServer, tmp_path: Path, kind: type[ImageFileConsumer]
) -> None:
    parts: dict[str, Any] = {"model_server": onnx_server, "models": ModelStore(None), "name": "pod-1"}
    consumer = kind(redis_client, Storage(tmp_path.as_uri()), "predict", **parts)
    consumer.consume()
    job = redis_db.hgetall(JOB)
    assert job["status"] == "done", job.get("reason")
    (path,) = utils.iter_image_archive(tmp_path / job["output_file_name"], tmp_path / "result")
    assert tifffile.imread(path).max() == 16


def test_consumers_by_their_types() -> None:
    found = consumers.CONSUMERS
    assert found["image"] is ImageFileConsumer
    assert found["caliban"] is consumers.CalibanConsumer is consumers.TrackingConsumer


def test_a_consumer_that_a_script_adds_is_made(redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(consumers.CONSUMERS, "older", Older)
    made = registry.make_consumer("OLDER", redis_client=redis_client, storage_client=None, queue="predict")
    assert isinstance(made, Older)
    assert "older" in registry.names()
    monkeypatch.setitem(consumers.CONSUMERS, "wrong", int)
    with pytest.raises(SettingsError, match="no subclass"):
        registry.make_consumer("wrong")


def test_a_tensor_fills_an_official_request() -> None:
    request = official_class("tensorflow.serving.PredictRequest")()
    pixels = RNG.random((1, 4, 4, 1), dtype=np.float32)
    request.inputs["image"].CopyFrom(utils.make_tensor_proto(pixels, "DT_FLOAT"))
    response = official_class("tensorflow.serving.PredictResponse")()
    response.outputs["prediction"].CopyFrom(request.inputs["image"])
    np.testing.assert_array_equal(utils.grpc_response_to_dict(response)["prediction"], pixels, strict=True)
    ours = PredictResponse.FromString(response.SerializeToString())
    np.testing.assert_array_equal(utils.grpc_response_to_dict(ours)["prediction"], pixels, strict=True)


def test_clients_of_a_script_retry_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "GRPC_BACKOFF", 0.5, raising=False)
    monkeypatch.setattr(settings, "MAX_RETRY", 2, raising=False)
    limits = grpc_clients.PredictClient("localhost:1", "Scaling", 1)._server._channel._limits
    assert (limits.backoff_s, limits.max_retries) == (0.5, 2)


def test_model_and_function_of_a_kind_of_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CYTOPLASM_MODEL", "Mine:7", raising=False)
    monkeypatch.setattr(settings, "PHASE_POSTPROCESS", "watershed", raising=False)
    assert utils._pick_model(1) == utils._pick_model("1") == ["Mine", "7"]
    assert utils._pick_postprocess(2) == "watershed"
    for pick in (utils._pick_model, utils._pick_postprocess):
        with pytest.raises(ValueError, match="no kind of image"):
            pick(9)


def test_submodules_are_attributes() -> None:
    for name in ("consumers", "grpc_clients", "redis", "settings", "storage", "utils", "tracking", "processing"):
        assert getattr(redis_consumer, name).__name__ == f"redis_consumer.{name}"
