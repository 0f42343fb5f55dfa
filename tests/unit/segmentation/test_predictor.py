from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.options import TilingOptions
from redis_consumer.segmentation.predictor import Predictor, model_of, stacked
from redis_consumer.serving.base import ModelSpec, TensorSpec
from redis_consumer.storage import Storage

MODEL = ModelId("M", 1)


class Doubling:
    """A model server whose only model doubles images, and notes how many tiles each call has."""

    def __init__(self, *shape: int | None) -> None:
        self.shape = shape
        self.asked: list[int] = []

    def metadata(self, model: ModelId, **_: Any) -> ModelSpec:
        kind = np.dtype(np.float32)
        return ModelSpec((TensorSpec("pixels", kind, self.shape),), (TensorSpec("prediction", kind, self.shape),))

    def predict(self, model: ModelId, inputs: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        self.asked.append(len(inputs["pixels"]))
        return {"prediction": 2 * inputs["pixels"]}

    def check(self) -> str:
        return "here"

    def close(self) -> None:
        pass


def pixels(*shape: int) -> Any:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def test_each_call_has_as_many_tiles_as_the_model_wants() -> None:
    server, image = Doubling(4, 16, 16, 1), pixels(1, 40, 40, 1)
    (output,) = Predictor(ModelStore(None), server, TilingOptions()).predict(image, MODEL)
    assert server.asked == [4, 4, 4]
    np.testing.assert_array_equal(output, 2 * image)


def test_a_plugins_own_method_gets_one_tile_at_a_time_and_no_server_is_asked_for_cuts() -> None:
    asked: list[tuple[int, ...]] = []

    def ask_one(image: Any, name: str, version: Any) -> Any:
        asked.append(image.shape)
        return 3 * image[np.newaxis]

    server, image = Doubling(None, 16, 16, 1), pixels(1, 32, 16, 1)
    predictor = Predictor(ModelStore(None), server, TilingOptions(), ask_one=ask_one)
    np.testing.assert_array_equal(predictor.predict(image, MODEL)[0], 3 * image)
    assert (asked, server.asked) == ([(16, 16, 1)] * 3, [])
    server.metadata = lambda *_, **__: pytest.fail("it was asked")  # type: ignore[method-assign]
    np.testing.assert_array_equal(predictor.predict_cut(2, image, 1, ModelId("Unknown"))[0], 3 * image)


def test_the_progress_is_that_of_all_parts() -> None:
    told: list[tuple[int, int]] = []
    predictor = Predictor(
        ModelStore(None), Doubling(None, 16, 16, 1), TilingOptions(), report=lambda *done: told.append(done)
    )
    predictor.state.part = (1, 2)
    predictor.predict(pixels(3, 16, 16, 1), MODEL)
    assert told == [(6, 6)]


def test_a_call_without_the_models_card_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "models" / "M" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text("pixel_size_um = 0.5")
    predictor = Predictor(ModelStore(Storage(tmp_path.as_uri())), Doubling(None, None, None, 1), TilingOptions())
    with predictor.state.by_card():
        predictor.predict(pixels(1, 4, 4, 1), MODEL)
    assert "without what its card says" not in caplog.text
    for _ in range(2):
        predictor.predict(pixels(1, 4, 4, 1), MODEL)
    assert caplog.text.count("Model M:1 is called without what its card says (pixel_size_um)") == 1


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((4, 5), "items: they have shapes (4, 4, 1), (5, 5, 1); give at least one, and all in one size"),
        ((), "items: there are none"),
    ],
)
def test_items_that_cannot_be_stacked_are_refused_in_words(sides: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        stacked([np.zeros((side, side, 1)) for side in sides])


def test_what_names_no_model_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match="model: None is a NoneType; give a ModelId, or a text such as 'Nuclei:1'"):
        model_of(None)  # type: ignore[arg-type]
