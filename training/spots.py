"""Writes the shipped detector of spots as a model: a Laplacian of Gaussian with one threshold.

Run from the repository's root: ``PYTHONPATH=src python -m training.spots --help``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from training.train import write_onnx

MODEL_PATH = Path("src/redis_consumer/models/SpotDetection/1/model.onnx")
#: Standard deviation of a spot in pixels, and the pixels around it that count.
SIGMA_PX, REACH_PX = 1.5, 6
#: Least height of a spot in standard deviations of the noise, at which the probability is that of the settings.
LEAST_SNR, LEAST_PROBABILITY = 4.0, 0.95
#: A normal distribution has this standard deviation for a median absolute deviation of 1.
NOISE_OF_MAD = 1.4826


class SpotFilter(nn.Module):
    """Maps planes to maps of spots as `redis_consumer.processing.spots.points_of_maps` takes them.

    The method is that of `redis_consumer.processing.spots.points_of_blobs`; the noise is that of each tile.
    """

    def __init__(self) -> None:
        super().__init__()
        point = np.zeros((2 * REACH_PX + 1, 2 * REACH_PX + 1))
        point[REACH_PX, REACH_PX] = 1
        kernel = -(SIGMA_PX**2) * ndimage.gaussian_laplace(point, SIGMA_PX)
        self.register_buffer("kernel", torch.from_numpy(kernel - kernel.mean()).float()[None, None])
        self.kernel: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, Y, X, 1) to probabilities of background and spot, and offsets along y and x, each (N, Y, X, 2)."""
        plane = image.permute(0, 3, 1, 2)
        response = conv2d(pad(plane, [REACH_PX] * 4, mode="replicate"), self.kernel)
        flat = response.flatten(1)
        middle = _median(flat)
        noise = NOISE_OF_MAD * _median((flat - middle).abs()).clamp(min=1e-9)
        snr = (response / noise[:, :, None, None]).clamp(min=LEAST_SNR * (1 - LEAST_PROBABILITY))
        spot = 1 - LEAST_SNR * (1 - LEAST_PROBABILITY) / snr
        wide = pad(response, [1] * 4, mode="replicate")
        offsets = [
            _vertex(wide[:, :, :-2, 1:-1], response, wide[:, :, 2:, 1:-1]),
            _vertex(wide[:, :, 1:-1, :-2], response, wide[:, :, 1:-1, 2:]),
        ]
        both = torch.cat([1 - spot, spot], dim=1), torch.cat(offsets, dim=1)
        return both[0].permute(0, 2, 3, 1), both[1].permute(0, 2, 3, 1)


def _median(values: Tensor) -> Tensor:
    """Return the median of each row, (N, 1)."""
    return torch.topk(values, (values.shape[1] + 1) // 2, dim=1)[0].amin(dim=1, keepdim=True)


def _vertex(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Return where a parabola through three neighbouring values is highest, relative to the middle one."""
    curvature = (before - 2 * at + after).clamp(max=-1e-12)
    return ((before - after) / (2 * curvature)).clamp(-0.5, 0.5)


def main(output: Annotated[Path, typer.Option(help="Where the model goes.")] = MODEL_PATH) -> None:
    """Write the model."""
    write_onnx(SpotFilter(), torch.rand(1, 64, 80, 1), output, ["classification", "offset_regression"])
    typer.echo(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    typer.run(main)
