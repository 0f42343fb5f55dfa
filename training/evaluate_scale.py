"""Compares the estimated size of objects with the true one, on real images with masks.

Run from the repository's root: ``PYTHONPATH=src python -m training.evaluate_scale --data FOLDER``. `training.real` says
what the folder holds.
"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tomllib
import typer
from training.evaluate import Model
from training.real import RealImage, load
from training.train import MODEL_PATH

from redis_consumer.processing.registry import apply
from redis_consumer.segmentation.frames import Frames
from redis_consumer.segmentation.size_estimate import estimate_diameter

#: Largest ratio of the scale in the job to the right one, and of the right one to it.
TOLERANCE = 1.25


def estimate(model: Model, card: dict[str, Any], image: RealImage) -> float | None:
    """Estimate the diameter of the nuclei in an image as a worker does; None without nuclei."""
    functions = card["functions"]
    return estimate_diameter(
        Frames.of(image.image[None, ..., None]),
        card["object_diameter_px"],
        lambda pixels: apply("pre", card["preprocess"], pixels, functions),
        lambda piece: apply("post", card["postprocess"], model.predict(piece), functions),
    )


def summary(images: list[RealImage], estimates: list[float | None]) -> dict[str, float]:
    """Return the number of images, the share within the tolerance, and the median of estimate / truth."""
    ratios = np.array([(found or np.nan) / image.diameter for image, found in zip(images, estimates, strict=True)])
    is_near = np.abs(np.log(ratios)) <= np.log(TOLERANCE)
    return {
        "images": len(images),
        "within_25_percent": round(float(is_near.mean()), 3),
        "median_ratio": round(float(np.nanmedian(ratios)), 3),
        "without_estimate": int(np.isnan(ratios).sum()),
    }


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder of real images with masks.")],
    model_path: Annotated[Path, typer.Option("--model", help="The model; card.toml lies beside it.")] = MODEL_PATH,
    kind: Annotated[str, typer.Option(help="Kind of images in the index.")] = "fluorescence",
    part: Annotated[str | None, typer.Option(help="Only train, 'by id' or 'by experiment'.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th image.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print, for each part of the images, how often the estimated size of nuclei is within 25 % of the true one."""
    card = tomllib.loads((model_path.parent / "card.toml").read_text())
    model = Model(model_path)
    images = [image for image in load(data, [kind]) if part in (None, image.part)][::every]
    estimates = [estimate(model, card, image) for image in images]
    parts = sorted({image.part for image in images})
    found = {}
    for name in parts:
        chosen = [number for number, image in enumerate(images) if image.part == name]
        found[name] = summary([images[number] for number in chosen], [estimates[number] for number in chosen])
    if json:
        typer.echo(json_format.dumps(found))
        return
    for name, values in found.items():
        typer.echo(f"{name}: {', '.join(f'{key} {value}' for key, value in values.items())}")


if __name__ == "__main__":
    typer.run(main)
