"""Compares whole cells of the classical method with nuclei grown by a fixed radius, on synthetic images.

Run from the repository's root: ``PYTHONPATH=src python -m training.evaluate_cells --help``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import tomllib
import typer
from skimage import segmentation
from training.evaluate import Labels, Model
from training.scores import average_precision
from training.two_channels import Cells, draw_cells

from redis_consumer.processing.multiplex import whole_cells
from redis_consumer.processing.registry import apply

MODEL_PATH = Path("src/redis_consumer/models/NuclearSegmentation/2/model.onnx")
#: Radii by which nuclei are grown, of which the best one for all images counts, in pixels.
RADII_PX = (3, 5, 7, 9, 11, 14, 18)
SEED = 4


def main(
    model_path: Annotated[Path, typer.Option("--model", help="The model of nuclei; card.toml beside it.")] = MODEL_PATH,
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 40,
) -> None:
    """Print AP at an IoU of 0.5 and 0.75 for both methods, with the model's nuclei as seeds."""
    card, model = tomllib.loads((model_path.parent / "card.toml").read_text()), Model(model_path)
    rng = np.random.default_rng(SEED)
    pairs: dict[str, list[tuple[Cells, Labels]]] = {}
    for _ in range(count):
        cells = draw_cells(rng)
        image = apply("pre", card["preprocess"], cells.light[None, ..., None], card["functions"])
        nuclei = apply("post", card["postprocess"], model.predict(image), card["functions"])[0, ..., 0]
        pairs.setdefault("classical", []).append((cells, whole_cells(nuclei, cells.stain)))
        for radius in RADII_PX:
            pairs.setdefault(f"grown by {radius} px", []).append((cells, segmentation.expand_labels(nuclei, radius)))
    for name, found in pairs.items():
        told = []
        for stain, is_membrane in (("membranes", True), ("cytoplasm", False)):
            chosen = [(cells.cells, labels) for cells, labels in found if cells.is_membrane == is_membrane]
            told.append(f"{stain} {average_precision(chosen, 0.5):.3f} / {average_precision(chosen, 0.75):.3f}")
        every = [(cells.cells, labels) for cells, labels in found]
        told.append(f"all {average_precision(every, 0.5):.3f} / {average_precision(every, 0.75):.3f}")
        typer.echo(f"{name}: {', '.join(told)}")


if __name__ == "__main__":
    typer.run(main)
