"""`ImageFileConsumer` in this process, on a real Redis, with real models: which model and functions a job gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer
from redis_consumer.errors import InvalidJob
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import Labels, as_labels, run_job

JOB = "predict:a.npy:1"
PIXELS = np.random.default_rng(5).random((24, 30), dtype=np.float32)


@pytest.fixture
def consumer(redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path) -> ImageFileConsumer:
    storage = Storage(tmp_path.as_uri())
    np.save(tmp_path / "a.npy", PIXELS)
    storage.upload_file(tmp_path / "a.npy", "uploads/a.npy")
    return ImageFileConsumer(redis_client, storage, "predict", model_server=onnx_server, models=ModelStore(None))


@pytest.fixture
def run(consumer: ImageFileConsumer, redis_db: Any) -> Callable[..., Labels]:
    """Runs one job with these fields; gives its hash and the arrays of its result."""

    def run(**fields: str) -> Labels:
        given = {"status": "new", "input_file_name": "uploads/a.npy"}
        return as_labels(run_job(consumer, redis_db, JOB, {**given, **fields}))

    return run


@pytest.fixture(autouse=True)
def _same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that change nothing, for models whose raw answer is looked at."""
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["pre"], "same", lambda image: image)
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "same", lambda outputs: outputs[0])


SAME = {"scale": "1", "preprocess_function": "same", "postprocess_function": "same"}


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables and lets settings be read anew."""

    def configure(**variables: str) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        settings.use(None)

    return configure


def test_a_model_without_card_gets_the_image_as_it_is(run: Callable[..., Labels]) -> None:
    after, images = run(model_name="Scaling", model_version="1", scale="1")
    assert after["status"] == "done", after
    np.testing.assert_array_equal(images["a_feature_0.tif"], 2 * PIXELS)


def test_the_reason_of_an_image_in_parts_begins_with_its_name(
    run: Callable[..., Labels], consumer: ImageFileConsumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "sum", lambda outputs: outputs[0].sum(axis=(1, 2)))
    np.save(tmp_path / "large.npy", np.arange(2100 * 30, dtype=np.float32).reshape(2100, 30))
    consumer.storage.upload_file(tmp_path / "large.npy", "uploads/large.npy")
    given = {"model_name": "Scaling", "model_version": "1", "scale": "1", "postprocess_function": "sum"}
    after, _ = run(input_file_name="uploads/large.npy", **given)
    assert after["reason"].splitlines()[-1].startswith("ModelMismatch: large.npy: result: has the shape (1, 1)")


def test_no_model_means_the_one_for_nuclei(run: Callable[..., Labels], configure: Callable[..., None]) -> None:
    configure(NUCLEAR_MODEL="Scaling:3")
    _, images = run(**SAME)
    np.testing.assert_array_equal(images["a_feature_0.tif"], -1.5 * PIXELS)


def test_a_label_chooses_the_model_where_none_is_named(
    run: Callable[..., Labels], configure: Callable[..., None]
) -> None:
    configure(PHASE_MODEL="Scaling:3")
    _, images = run(**SAME, label="2")
    np.testing.assert_array_equal(images["a_feature_0.tif"], -1.5 * PIXELS)


def test_a_role_chooses_the_model_where_none_is_named(
    run: Callable[..., Labels], configure: Callable[..., None]
) -> None:
    configure(CYTOPLASM_MODEL="Scaling:3")
    _, images = run(**SAME, channels=",0")
    np.testing.assert_array_equal(images["a_feature_0.tif"], -1.5 * PIXELS)


def test_a_model_of_the_settings_without_card_gets_the_contracts_functions(
    run: Callable[..., Labels], configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(NUCLEAR_MODEL="Scaling:1", NUCLEAR_POSTPROCESS="largest")
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "largest", lambda outputs: outputs[0].clip(min=2))
    _, images = run(scale="1")
    # Stretched to 0..1 by histogram_normalization before the model doubled it, and clipped after it.
    assert set(np.unique(images["a_feature_0.tif"])) == {2.0}


def test_raw_outputs_are_warned_of(run: Callable[..., Labels], caplog: pytest.LogCaptureFixture) -> None:
    run(model_name="Scaling", model_version="1", scale="1")
    assert "Model Scaling:1 has no card.toml" in caplog.text


@pytest.mark.parametrize("name", ["x" * 300 + ".npy", "日" * 200 + ".npy", "a\0b.npy", "..npy", "caf\udce9.npy"])
def test_odd_names_of_files_end_done(run: Callable[..., Any], name: str) -> None:
    original_name = name.encode("utf-8", "surrogateescape")
    after, images = run(model_name="Scaling", model_version="1", scale="1", original_name=original_name)
    assert after["status"] == "done", after["reason"]
    assert len(images) == 1


def test_the_dimension_order_says_which_axes_are_frames(
    consumer: ImageFileConsumer, run: Callable[..., Labels], configure: Callable[..., None], tmp_path: Path
) -> None:
    configure(MAX_IMAGE_FRAMES="2")
    np.save(tmp_path / "stack.npy", np.eye(24, dtype=np.float32).reshape(3, 8, 24)[..., :8].copy())
    consumer.storage.upload_file(tmp_path / "stack.npy", "uploads/stack.npy")
    fields = {"model_name": "Scaling", "model_version": "1", "scale": "1", "input_file_name": "uploads/stack.npy"}
    after, _ = run(**fields, dimension_order="BXY")
    assert "stack.npy: 3 frames, allowed are 2" in after["reason"]
    after, _ = run(**fields, dimension_order="CXY", channels="0")
    assert after["status"] == "done", after
    assert after["axes_read"] == "CYX (3, 8, 8), from dimension_order"


def test_an_unknown_label_is_refused(run: Callable[..., Labels]) -> None:
    after, _ = run(scale="1", label="7")
    assert after["reason"] == "InvalidJob: field label: 7 is no kind of image; give one of 0, 1, 2, 3"


def test_a_detected_label_chooses_model_and_function(
    run: Callable[..., Labels], configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        LABEL_DETECT_ENABLED="yes",
        LABEL_DETECT_MODEL="Scaling:1",
        NUCLEAR_MODEL="Scaling:1",
        NUCLEAR_POSTPROCESS="halve",
    )
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "halve", lambda outputs: outputs[0] / 2)
    after, images = run(model_name="Scaling", model_version="3", scale="1", preprocess_function="same")
    assert after["label"] == "0"
    np.testing.assert_array_equal(images["a_feature_0.tif"], PIXELS)


def test_a_detected_scale_is_written_to_the_job(run: Callable[..., Labels], configure: Callable[..., None]) -> None:
    configure(SCALE_DETECT_ENABLED="true", SCALE_DETECT_MODEL="Scaling:1")
    after, images = run(model_name="Scaling", model_version="1")
    assert float(after["scale"]) == pytest.approx(2 * PIXELS.mean(), rel=1e-4)
    assert images["a_feature_0.tif"].shape == PIXELS.shape


@pytest.mark.parametrize("scale", ["0.3", "0.77", "2.9"])
def test_results_have_the_size_of_the_image_at_any_scale(run: Callable[..., Labels], scale: str) -> None:
    _, images = run(model_name="Scaling", model_version="1", scale=scale)
    assert images["a_feature_0.tif"].shape == PIXELS.shape


def test_functions_run_in_the_order_of_the_field(run: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["pre"], "double", lambda image: 2 * image)
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["pre"], "less one", lambda image: image - 1)
    _, images = run(model_name="Scaling", model_version="1", scale="1", preprocess_function="double,less one")
    np.testing.assert_allclose(images["a_feature_0.tif"], 2 * (2 * PIXELS - 1), rtol=1e-5)


def test_a_job_that_is_done_is_left_alone(consumer: ImageFileConsumer, redis_db: Any) -> None:
    redis_db.hset(JOB, mapping={"status": "failed", "reason": "earlier"})
    before = redis_db.hgetall(JOB)
    assert consumer._consume(JOB) == "failed"
    assert redis_db.hgetall(JOB) == before


@pytest.mark.parametrize(("name", "is_valid"), [("a.tif", True), ("a.zip", False), ("a.ZIp", False), ("", True)])
def test_archives_are_for_another_queue(consumer: ImageFileConsumer, redis_db: Any, name: str, is_valid: bool) -> None:
    redis_db.hset(JOB, "input_file_name", name)
    assert consumer.is_valid_hash(JOB) is is_valid
    assert consumer.is_valid_hash(None) is False


def test_plugins_may_call_functions_by_name(consumer: ImageFileConsumer) -> None:
    batch = PIXELS[np.newaxis, ..., np.newaxis]
    assert consumer.process(batch, "", "pre") is batch
    assert consumer.preprocess(batch, [""]) is batch
    assert abs(consumer.preprocess(batch, ["normalize"]).mean()) < 1e-3
    assert consumer.postprocess(np.concatenate([batch] * 4, axis=-1), ["pixelwise"]).shape == batch.shape[1:]
    with pytest.raises(InvalidJob, match="nope"):
        consumer.process(batch, "nope", "post")


def test_closing_gives_back_what_was_opened(
    redis_client: RedisClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SERVER", "onnx://")
    consumer = ImageFileConsumer(redis_client, Storage(tmp_path.as_uri()), "predict")
    consumer.prepare()
    consumer._check_dependencies()
    consumer.close()


def test_the_running_job_is_seen_by_plugins(consumer: ImageFileConsumer, redis_db: Any) -> None:
    assert consumer._redis_hash is None
    assert consumer._redis_values == {}
    redis_db.hset(JOB, mapping={"status": "new", "scale": "1"})
    redis_db.lpush("predict", JOB)
    assert consumer.get_redis_hash() == consumer._redis_hash == JOB
    assert consumer._redis_values["scale"] == "1"
