"""Trains the shipped classifier of images: fluorescence, phase contrast, stained tissue or something else.

Run from the repository's root: ``PYTHONPATH=src python -m training.kinds --help``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from scipy import ndimage
from skimage import data as pictures
from skimage import transform
from torch import Tensor, nn
from training.others import draw_other
from training.real import RealImage, load
from training.synthetic import make_sample
from training.train import OPSET, take_steps

from redis_consumer.segmentation.detection import crops, label_of

Floats = npt.NDArray[np.float32]

MODEL_PATH = Path("src/redis_consumer/models/LabelDetection/1/model.onnx")
#: Labels of the settings' models, and the one of images that none of them is for. No image of label 1 is at hand.
KINDS = {"fluorescence": 0, "phase": 2, "histology": 3, "brightfield-gray": 3}
OTHER, CLASSES = 4, 5
#: Pictures of the library that are like none of the kinds.
PICTURES = ("astronaut", "brick", "camera", "coffee", "grass", "gravel", "page", "rocket", "text", "chelsea")
HELD_OUT_PICTURES = ("coins", "moon", "hubble_deep_field", "clock", "horse")
CROP_PX, BATCH = 128, 32
#: Smallest and largest factor by which pieces are resized in training.
SCALES = (0.5, 2.0)


class KindNet(nn.Module):
    """Maps images to the probabilities of their kinds; grey values of any range, at least 16 px wide."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((2, 12), (12, 24), (24, 32), (32, 48)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.answer = nn.Linear(96, CLASSES)

    def logits(self, image: Tensor) -> Tensor:
        """Map (N, 1, Y, X) to (N, classes)."""
        # Brightness and contrast of a piece say nothing about its kind.
        mean = image.mean((1, 2, 3), keepdim=True)
        spread = ((image - mean) ** 2).mean((1, 2, 3), keepdim=True).sqrt()
        seen = ((image - mean) / (spread + 1e-6)).clamp(-4, 8)
        seen = self.layers(torch.cat([seen / 2, torch.sign(seen) * torch.log1p(seen.abs())], dim=1))
        answers: Tensor = self.answer(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1))
        return answers

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, Y, X, 1) to probabilities (N, classes)."""
        return torch.softmax(self.logits(image.permute(0, 3, 1, 2)), dim=1)


def _draw(rng: np.random.Generator, images: dict[int, list[RealImage]], others: Sequence[Floats]) -> tuple[Floats, int]:
    """Draw a piece of an image of any kind, with other size, light and noise."""
    label = int(rng.choice([0, 2, 3, OTHER], p=[0.28, 0.2, 0.22, 0.3]))
    if label == OTHER:
        grey = draw_other(rng, CROP_PX, others)
    elif label == 0 and rng.random() < 0.3:
        grey = make_sample(rng, CROP_PX, has_debris=True).image
    else:
        known = images[label]
        grey = _piece(rng, known[rng.integers(len(known))].image)
    if label == 3 and rng.random() < 0.5:
        grey = -grey
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    if rng.random() < 0.4:
        grey = grey ** np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:
        grey = ndimage.gaussian_filter(grey, rng.uniform(0.3, 1.5))
    if rng.random() < 0.5:
        grey = grey + rng.normal(0, rng.uniform(0, 0.05), grey.shape)
    return np.ascontiguousarray(np.rot90(grey, rng.integers(4)), np.float32), label


def _piece(rng: np.random.Generator, image: Floats) -> Floats:
    """Cut a square at random and resize it."""
    side = CROP_PX / np.exp(rng.uniform(*np.log(SCALES)))
    side = int(min(side, *image.shape))
    top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape)
    piece = image[top : top + side, left : left + side]
    return np.asarray(transform.resize(piece, (CROP_PX, CROP_PX), order=1, anti_aliasing=side > CROP_PX), np.float32)


def _picture(name: str) -> Floats:
    array = np.asarray(getattr(pictures, name)(), np.float32)
    return array[..., :3].mean(axis=-1) if array.ndim == 3 else array


def fit(images: dict[int, list[RealImage]], steps: int, seed: int) -> KindNet:
    """Train a classifier on one thread."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng, network = np.random.default_rng(seed), KindNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    others = [_picture(name) for name in PICTURES]

    def next_loss() -> Tensor:
        drawn = [_draw(rng, images, others) for _ in range(BATCH)]
        batch = torch.from_numpy(np.stack([image for image, _ in drawn]))[:, None]
        wanted = torch.tensor([label for _, label in drawn])
        return nn.functional.cross_entropy(network.logits(batch), wanted, label_smoothing=0.05)

    take_steps(next_loss, optimizer, schedule, steps)
    return network.eval()


def judge(network: KindNet, image: Floats) -> int:
    """Return the label of an image as a worker finds it: by every third square of 216 px."""
    pieces = torch.from_numpy(crops(image, 216, every=3))
    with torch.no_grad():
        return label_of(network(pieces).numpy())


def main(
    data: Annotated[Path, typer.Option(help="Folder with dsb2018/ and phase/, see training/real.py.")],
    steps: Annotated[int, typer.Option(help="Batches of 32 pieces; about 0.6 s each.")] = 900,
    seed: Annotated[int, typer.Option(help="Decides weights and pieces.")] = 5,
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = MODEL_PATH,
) -> None:
    """Train the classifier, print how often it is right on held-out images of each kind, and export it."""
    found = load(data / "dsb2018", list(KINDS)) + load(data / "phase", list(KINDS))
    images: dict[int, list[RealImage]] = {0: [], 2: [], 3: []}
    for image in found:
        if image.part == "train":
            images[KINDS[image.kind]].append(image)
    network = fit(images, steps, seed)
    pairs = [(image.kind, KINDS[image.kind], image.image) for image in found if image.part != "train"]
    pairs += [(f"{kind}, inverted", 3, -image) for kind, label, image in pairs if label == 3]
    rng = np.random.default_rng(99)
    pairs += [("other, drawn", OTHER, draw_other(rng, 256, [])) for _ in range(60)]
    pairs += [("other, pictures", OTHER, _picture(name)) for name in HELD_OUT_PICTURES]
    for kind in dict.fromkeys(kind for kind, _, _ in pairs):
        told = [(label, judge(network, image.astype(np.float32))) for each, label, image in pairs if each == kind]
        wrong = [seen for label, seen in told if seen != label]
        typer.echo(f"{kind}: {len(told) - len(wrong)} of {len(told)} right; else {sorted(wrong)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        (torch.zeros(1, 64, 64, 1),),
        str(output),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["prediction"],
        dynamic_axes={"image": {0: "N", 1: "Y", 2: "X"}, "prediction": {0: "N"}},
    )
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
