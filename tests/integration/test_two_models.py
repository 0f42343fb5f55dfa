"""Each model of a consumer runs with the functions and the pixel size of its own card."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import testing
from redis_consumer.consumers import Analysis, ImageFileConsumer
from redis_consumer.job import Job, ModelId
from redis_consumer.processing import deep_watershed
from redis_consumer.testing.models import fields_of
from support import onnx_models
from support.documents import ROOT

SIDE_PX, ROWS = 384, 3
NUCLEI_PX, CELLS_PX = 24, 96
ONNX = ROOT / "src" / "redis_consumer" / "models" / "NuclearSegmentation" / "1" / "model.onnx"
CARD = ONNX.with_name("card.toml").read_text(encoding="utf-8")


def discs(diameter_px: float, noise: int) -> tuple[Any, Any]:
    """Bright discs on a dim ground, (y, x) floats, and the true label image."""
    random = np.random.default_rng(noise)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    image, truth = random.normal(500, 40, (SIDE_PX, SIDE_PX)), np.zeros((SIDE_PX, SIDE_PX), int)
    centres = (np.arange(ROWS) + 0.5) * SIDE_PX / ROWS
    for row in centres:
        for column in centres:
            distance = np.hypot(y - row, x - column)
            image += 4000 / (1 + np.exp((distance - diameter_px / 2) / (diameter_px / 20)))
            truth[distance < diameter_px / 2] = truth.max() + 1
    return image, truth


def f1(labels: Any, truth: Any) -> float:
    """F1 at an overlap (IoU) above one half."""
    found = 0
    for value in range(1, truth.max() + 1):
        mask = truth == value
        values, counts = np.unique(labels[mask], return_counts=True)
        best = values[counts.argmax()]
        other = labels == best
        found += bool(best) and (mask & other).sum() / (mask | other).sum() > 0.5
    return float(2 * found / (truth.max() + len(np.unique(labels)) - 1))


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Two real networks: for cells four times as large, so that its card has four times the pixel size."""
    paths = {}
    for name, factor in (("Nuclei", 1), ("Cells", 4)):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copyfile(ONNX, folder / "model.onnx")
        card = CARD.replace("pixel_size_um = 0.65", f"pixel_size_um = {0.65 * factor}")
        assert (card == CARD) == (factor == 1)
        (folder / "card.toml").write_text(card.replace("small_objects_threshold = 30", "small_objects_threshold = 99"))
        paths[name] = folder / "model.onnx"
    return paths


@pytest.fixture
def image() -> Any:
    return np.stack([discs(NUCLEI_PX, 1)[0], discs(CELLS_PX, 2)[0]], axis=-1).astype(np.float32)


def test_each_model_gets_what_its_card_says(
    models: dict[str, Path], image: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    with caplog.at_level(logging.WARNING):
        run = testing.run("two_models:NucleiAndCells", image, model=models, scale=1, channels="0,1")
    assert run.status == "done", run.reason
    assert f1(run.outputs["image_nuclei_0.tif"], discs(NUCLEI_PX, 1)[1]) == 1
    assert f1(run.outputs["image_feature_0.tif"], discs(CELLS_PX, 2)[1]) == 1
    assert run.fields["nuclei_count"] == "9"
    assert "is called without" not in caplog.text


class Raw(ImageFileConsumer):
    """What an author writes who doesn't know of cards."""

    def analyze(self, image: Any, job: Job) -> Analysis:
        cells = image[..., 1:2]
        self.predict(cells, "Cells:1")
        labels = deep_watershed(self.predict(cells, "Cells:1"))
        return {"labels": labels}


def test_a_model_that_is_called_raw_finds_nothing_and_the_log_says_why(
    models: dict[str, Path], image: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = testing.run(Raw, image, model=models, scale=1, channels="0,1")
    assert run.status == "done", run.reason
    assert f1(run.outputs["image_feature_0.tif"], discs(CELLS_PX, 2)[1]) < 0.5
    lines = [line for line in caplog.text.splitlines() if "is called without" in line]
    assert len(lines) == 1
    assert "Cells:1" in lines[0]
    assert "preprocess, postprocess, pixel_size_um" in lines[0]
    assert "self.segment(image, job, model='Cells:1')" in lines[0]


class Scaled(ImageFileConsumer):
    """Tells at which sizes a model is called."""

    def analyze(self, image: Any, job: Job) -> Analysis:
        self.sizes: list[tuple[int, ...]] = []
        for model in (None, ModelId("B", 1), job.model):
            self._segmentation().apply(image, job, model)
        return {"sizes": str(self.sizes), "labels": np.zeros((1, 8, 8, 1), np.int32)}

    def predict(self, image: Any, model: Any) -> Any:  # type: ignore[override]
        self.sizes.append(image.shape[1:3])
        return super().predict(image, model)


@pytest.mark.parametrize(
    ("cards", "scale", "sizes"),
    [
        (("pixel_size_um = 0.5", "pixel_size_um = 1"), "1", [(64, 64), (32, 32), (64, 64)]),
        (("pixel_size_um = 0.5", "pixel_size_um = 1"), "0.5", [(32, 32), (16, 16), (32, 32)]),
        (("pixel_size_um = 1", "pixel_size_um = 0.5"), "0.5", [(32, 32), (64, 64), (32, 32)]),
        (("", "pixel_size_um = 0.5"), "0.5", [(32, 32), (32, 32), (32, 32)]),
        (("pixel_size_um = 0.5", None), "0.5", [(32, 32), (32, 32), (32, 32)]),
    ],
)
def test_the_scale_of_another_model_follows_the_pixel_sizes(
    tmp_path: Path, cards: tuple[str | None, ...], scale: str, sizes: list[tuple[int, int]]
) -> None:
    paths = {}
    for name, card in zip("AB", cards, strict=True):
        onnx_models.save(tmp_path, name, 1, onnx_models.scaling(2.0))
        paths[name] = tmp_path / name / "1" / "model.onnx"
        if card is not None:
            paths[name].with_name("card.toml").write_text(card)
    run = testing.run(Scaled, np.ones((64, 64, 1), np.float32), model=paths, scale=scale)
    assert run.status == "done", run.reason
    assert run.fields["sizes"] == str(sizes)


def test_functions_of_the_job_hold_for_its_own_model_only(models: dict[str, Path], image: Any) -> None:
    class Both(ImageFileConsumer):
        def analyze(self, image: Any, job: Job) -> Analysis:
            return {"labels": self.segment(image[..., 1:2], job, model="Cells:1")}

    run = testing.run(Both, image, model=models, scale=1, channels="0,1", postprocess_function="normalise")
    assert run.status == "done", run.reason
    assert f1(run.outputs["image_feature_0.tif"], discs(CELLS_PX, 2)[1]) == 1


def test_another_model_without_a_card_is_named(tmp_path: Path) -> None:
    class Other(ImageFileConsumer):
        def analyze(self, image: Any, job: Job) -> Analysis:
            return {"labels": self.segment(image, job, model="B:1")}

    doubles = {"A": lambda batch: batch, "B": lambda batch: 2 * batch}
    run = testing.run(Other, np.ones((8, 8, 1), np.float32), model=doubles)
    assert run.status == "failed"
    assert "name a function that makes one as postprocess in the card of model B:1" in run.reason


def test_the_shipped_model_is_the_one_that_is_copied() -> None:
    assert fields_of({}) == {"model_name": "NuclearSegmentation", "model_version": "1"}
