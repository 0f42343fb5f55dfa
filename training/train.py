"""Trains the shipped models of nuclei, on synthetic images alone or with real ones, and exports ONNX.

Run from the repository's root: ``PYTHONPATH=src python -m training.train --help``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import onnx
import torch
import typer
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from training.network import LARGE, SMALL, Exported, NuclearUNet
from training.real import RealImage, draw_crop, load
from training.synthetic import make_sample, make_targets

Floats = npt.NDArray[np.float32]

MODEL_PATH = Path("src/redis_consumer/models/NuclearSegmentation/1/model.onnx")
OPSET = 17
#: Weights of fewer numbers stay float32.
FEW_WEIGHTS = 256
CROP_PX = 128
SAMPLES_PER_STEP = 4
CROPS_PER_SAMPLE = 2
#: With real images: sides of a crop, and crops a step.
REAL_CROP_PX, REAL_BATCH = 160, 8
#: How much each part of the loss counts: inner distance, foreground, overlap of the foreground.
MSE_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 5.0, 0.5, 0.2


class Crops(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless series of batches: images (N, 1, y, x) and targets (N, 2, y, x), always the same for a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw fresh images for every batch: no image is seen twice."""
        rng = np.random.default_rng(self.seed)
        while True:
            crops = [crop for _ in range(SAMPLES_PER_STEP) for crop in _crop_sample(rng)]
            stacked = torch.from_numpy(np.stack(crops))
            yield stacked[:, :1], stacked[:, 1:]


class MixedCrops(IterableDataset[tuple[Tensor, Tensor]]):
    """As `Crops`, of real images and some synthetic ones with debris; for worker processes, each with its own seed."""

    def __init__(self, images: list[RealImage], seed: int, synthetic_share: float) -> None:
        self.images = images
        self.seed = seed
        self.synthetic_share = synthetic_share
        # Crowded images teach more than near-empty ones, and rare experiments more than frequent ones, but not in
        # proportion. Images of one size come from one experiment.
        sizes = Counter(image.labels.shape for image in images)
        rarity = [sizes[image.labels.shape] ** -0.5 for image in images]
        crowd = [min(image.labels.max(), 60) ** 0.5 * _area(image) for image in images]
        weights = np.array(rarity) * np.array(crowd)
        self.shares = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw fresh crops for every batch."""
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            stacked = torch.from_numpy(np.stack([self._draw(rng) for _ in range(REAL_BATCH)]))
            yield stacked[:, :1], stacked[:, 1:]

    def _draw(self, rng: np.random.Generator) -> Floats:
        if rng.random() < self.synthetic_share:
            sample = make_sample(rng, REAL_CROP_PX, has_debris=True)
            return np.stack([sample.image, *make_targets(sample.labels)])
        image, labels = draw_crop(rng, self.images[rng.choice(len(self.images), p=self.shares)], REAL_CROP_PX)
        return np.stack([image, *make_targets(labels)])


def _area(image: RealImage) -> float:
    """Area in nuclei, less than proportional: a large image isn't drawn as often as many small ones."""
    return float((image.image.size / image.diameter**2) ** 0.25)


def _crop_sample(rng: np.random.Generator) -> list[Floats]:
    """Cut (3, y, x) pieces out of one new image: intensity, inner distance, foreground."""
    sample = make_sample(rng)
    planes = np.stack([sample.image, *make_targets(sample.labels)])
    pieces = []
    for _ in range(CROPS_PER_SAMPLE):
        top, left = rng.integers(0, sample.image.shape[0] - CROP_PX + 1, size=2)
        piece = planes[:, top : top + CROP_PX, left : left + CROP_PX]
        pieces.append(np.ascontiguousarray(np.rot90(piece, rng.integers(4), axes=(1, 2))))
    return pieces


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    inner, foreground = torch.sigmoid(logits[:, 0]), torch.sigmoid(logits[:, 1])
    squared = nn.functional.mse_loss(inner, targets[:, 0])
    entropy = nn.functional.binary_cross_entropy_with_logits(logits[:, 1], targets[:, 1])
    overlap = 2 * (foreground * targets[:, 1]).sum() / (foreground.sum() + targets[:, 1].sum() + 1)
    return MSE_WEIGHT * squared + BCE_WEIGHT * entropy + DICE_WEIGHT * (1 - overlap)


def take_steps(
    next_loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    steps: int,
) -> None:
    """Take a number of steps, each on the loss of another batch. Print the mean loss of every 50 steps."""
    started, recent = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        loss = next_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent += loss.item()
        if step % 50 == 0:
            typer.echo(f"step {step}/{steps}  loss {recent / 50:.4f}  {time.monotonic() - started:.0f} s")
            recent = 0.0


def fit(network: NuclearUNet, crops: IterableDataset[tuple[Tensor, Tensor]], steps: int, rate: float) -> NuclearUNet:
    """Train a network for a number of steps; one thread computes, one process draws images."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    batches = iter(DataLoader(crops, batch_size=None, num_workers=1, prefetch_factor=16))

    def next_loss() -> Tensor:
        images, targets = next(batches)
        return _loss(network(images.contiguous(memory_format=torch.channels_last)), targets)

    take_steps(next_loss, optimizer, schedule, steps)
    return network.eval()


def write_onnx(module: nn.Module, image: Tensor, path: Path, outputs: list[str]) -> None:
    """Write a module as ONNX. Input and outputs are (N, Y, X, channels) of any size but that of the channels.

    Args:
        module: takes an image and returns the outputs.
        image: an example.
        path: of the file.
        outputs: names of the outputs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module.eval(),
        (image,),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=outputs,
        dynamic_axes={name: {0: "N", 1: "Y", 2: "X"} for name in ("image", *outputs)},
    )


def export(network: NuclearUNet, path: Path, *, has_views: bool = False) -> None:
    """Write the network as ONNX with free batch size and sides; `has_views` as for `Exported`."""
    network = network.to(memory_format=torch.contiguous_format)
    outputs = ["prediction_0", "prediction_1"]
    write_onnx(Exported(network, has_views=has_views), torch.zeros(1, 64, 64, 1), path, outputs)


def halve(path: Path) -> None:
    """Store the weights of a model as float16, which the runtime turns into float32 when it loads the model."""
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.size >= FEW_WEIGHTS:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main(
    steps: Annotated[
        int, typer.Option(min=0, help="Batches of 8 crops; 0 to only write a model; about 0.4 s each on two cores.")
    ] = 2600,
    seed: Annotated[int, typer.Option(help="Decides weights and images.")] = 20261124,
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 3e-3,
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = MODEL_PATH,
    data: Annotated[Path | None, typer.Option(help="Folder of real images, see training/real.py.")] = None,
    kind: Annotated[str, typer.Option(help="Kinds of real images, separated by commas.")] = "fluorescence",
    synthetic: Annotated[float, typer.Option(help="Share of synthetic images beside real ones.")] = 0.3,
    held_out: Annotated[str, typer.Option(help="Parts of the real images that are left out.")] = "by id,by experiment",
    views: Annotated[bool, typer.Option(help="The model also runs over inverse and mirrored images.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Weights to begin with, of an earlier run with real images.")
    ] = None,
) -> None:
    """Train a model, export it as ONNX, and write its weights beside it as ``.pt``."""
    torch.manual_seed(seed)
    if data is None:
        network = fit(NuclearUNet(SMALL), Crops(seed), steps, rate)
    else:
        images = [image for image in load(data, kind.split(",")) if image.part not in held_out.split(",")]
        network = NuclearUNet(LARGE)
        if start is not None:
            network.load_state_dict(torch.load(start, weights_only=True))
        if steps:
            network = fit(network, MixedCrops(images, seed, synthetic), steps, rate)
    export(network.eval(), output, has_views=views)
    halve(output)
    torch.save(network.state_dict(), output.with_suffix(".pt"))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
