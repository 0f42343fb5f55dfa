"""Scores the shipped model on synthetic images never trained on, and draws its outlines on a real one.

Run from the repository's root: ``PYTHONPATH=src python -m training.evaluate --help``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tifffile
import tomllib
import typer
from skimage import io, segmentation, transform
from training.scores import average_precision
from training.synthetic import make_sample
from training.train import MODEL_PATH

from redis_consumer.processing.labels import deep_watershed
from redis_consumer.processing.normalization import percentile_normalize

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Labels = npt.NDArray[np.int32]
Maps = list[npt.NDArray[np.float32]]
Options = Mapping[str, Any]

REAL_IMAGE = Path("data/nuclei.tif")
REAL_SCALE = 0.5
#: No training run draws its images from this seed.
HELD_OUT_SEED = 99
OVERLAY = Path("build/nuclei_overlay.png")
MULTIPLE_PX = 16
DIAMETER_BANDS = ((14, 20), (20, 30), (30, 40), (40, 56))


class Model:
    """The exported model in onnxruntime, on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(self, image: npt.NDArray[np.float32]) -> Maps:
        """Map a normalised image (1, Y, X, 1) to inner distance and foreground, each (1, Y, X, 1)."""
        height, width = image.shape[1:3]
        missing = [(0, 0), (0, -height % MULTIPLE_PX), (0, -width % MULTIPLE_PX), (0, 0)]
        outputs = self._session.run(None, {"image": np.pad(image, missing, mode="symmetric")})
        return [output[:, :height, :width] for output in outputs]


def score_synthetic(model: Model, count: int, options: Options) -> list[str]:
    """Return the average precision on held-out synthetic images, together and by diameter."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    pairs, diameters = [], []
    for _ in range(count):
        sample = make_sample(rng, side=256)
        found = deep_watershed(model.predict(sample.image[None, ..., None]), **options)[0, ..., 0]
        pairs.append((sample.labels, found))
        diameters.append(sample.diameter)
    lines = [_say(f"{count} synthetic images", pairs)]
    for low, high in DIAMETER_BANDS:
        chosen = [pair for pair, diameter in zip(pairs, diameters, strict=True) if low <= diameter < high]
        lines.append(_say(f"  {low} to {high} px", chosen))
    return lines


def _say(name: str, pairs: list[tuple[Labels, Labels]]) -> str:
    values = [average_precision(pairs, threshold) for threshold in (0.5, 0.75)]
    return f"{name}: AP@0.5 {values[0]:.3f}, AP@0.75 {values[1]:.3f}"


def segment_real(model: Model, options: Options, normalization: Options) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Segment the real image at half its size and bring the labels back to full size."""
    raw = tifffile.imread(REAL_IMAGE)
    shape = [round(side * REAL_SCALE) for side in raw.shape]
    small = transform.resize(raw.astype(np.float32), shape, order=1, anti_aliasing=True)
    maps = model.predict(percentile_normalize(small[None, ..., None], **normalization))
    labels = deep_watershed(maps, **options)[0, ..., 0]
    full = transform.resize(labels, raw.shape, order=0, preserve_range=True, anti_aliasing=False)
    return raw, full.astype(np.int32)


def draw(raw: npt.NDArray[np.uint8], labels: Labels, path: Path) -> None:
    """Write the image, dark parts lifted, with the outline of each label."""
    shown = np.clip(raw / np.percentile(raw, 99), 0, 1) ** 0.6
    outlined = segmentation.mark_boundaries(np.stack([shown] * 3, axis=-1), labels, color=(1, 0.2, 0), mode="thick")
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, (255 * outlined).astype(np.uint8), check_contrast=False)


def measure_speed(model: Model) -> float:
    """Return the milliseconds of one 512 x 512 image on one thread, best of five."""
    image = np.zeros((1, 512, 512, 1), np.float32)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        model.predict(image)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def main(
    model_path: Annotated[Path, typer.Option("--model", help="The model; card.toml lies beside it.")] = MODEL_PATH,
    count: Annotated[int, typer.Option(help="How many synthetic images.")] = 100,
    overlay: Annotated[Path, typer.Option(help="Where the picture of the real image goes.")] = OVERLAY,
) -> None:
    """Print figures about a model and draw its outlines on the real image."""
    functions = tomllib.loads((MODEL_PATH.parent / "card.toml").read_text())["functions"]
    model = Model(model_path)
    for line in score_synthetic(model, count, functions["deep_watershed"]):
        typer.echo(line)
    raw, labels = segment_real(model, functions["deep_watershed"], functions["percentile_normalize"])
    draw(raw, labels, overlay)
    typer.echo(f"{REAL_IMAGE} at scale {REAL_SCALE}: {labels.max()} nuclei, outlines in {overlay}")
    typer.echo(f"{model_path.stat().st_size / 1e6:.2f} MB, {measure_speed(model):.0f} ms for 512 x 512 on one thread")


if __name__ == "__main__":
    typer.run(main)
