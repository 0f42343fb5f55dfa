"""A small U-Net with two outputs for each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Channels at each level of version 1 and 2; every level halves the sides of the one before.
SMALL, LARGE = (12, 24, 48, 72, 96), (12, 32, 64, 112, 160)
#: The darkest intensity that the log channel distinguishes from 0.
DARKEST = 0.01


class _Block(nn.Sequential):
    """Two convolutions of 3 x 3, each with normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class NuclearUNet(nn.Module):
    """Predicts the distance to the nucleus' edge, and the foreground, from a normalised image.

    In training the answers are logits (N, 2, Y, X); see `Exported` for what users get. Sides are multiples of 16.

    Args:
        widths: channels at each level, the finest first.
    """

    def __init__(self, widths: Sequence[int] = SMALL) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Block(inputs, outputs) for inputs, outputs in zip((2, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            _Block(lower + upper, upper) for lower, upper in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.answer = nn.Conv2d(widths[0], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (N, 1, Y, X) in 0..1, sides multiples of 16, to two logits a pixel (N, 2, Y, X)."""
        # Over-exposed cells leave little of 0..1 to the ordinary ones; their logs are as far apart as ever.
        logs = 1 + torch.log10(image.clamp(min=0) + DARKEST) / 2
        x = torch.cat([image, logs], dim=1)
        skipped: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skipped.append(x)
        for block, across in zip(self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), across], dim=1))
        return self.answer(x)


class Exported(nn.Module):
    """The network as model servers run it: channels last, answers in 0..1, one tensor an answer.

    Args:
        network: what it runs.
        has_views: whether the answer is the mean of those for the image and its inverse, each also mirrored, for a
            network that was trained on both.
    """

    def __init__(self, network: NuclearUNet, *, has_views: bool = False) -> None:
        super().__init__()
        self.network = network
        self.has_views = has_views

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map an image (N, Y, X, 1) to inner distance and weighted foreground, each (N, Y, X, 1)."""
        answers = self._answers(image.permute(0, 3, 1, 2))
        distance, foreground = answers[:, 0, :, :, None], answers[:, 1, :, :, None]
        # The watershed divides where this map is lowest. A plain probability is flat inside of clusters, so that
        # borders would lie anywhere; with this weight they run where nuclei touch.
        return distance, foreground * (0.5 + 0.5 * distance)

    def _answers(self, image: Tensor) -> Tensor:
        """Map an image (N, 1, Y, X) to probabilities (N, 2, Y, X)."""
        answers = torch.sigmoid(self.network(image))
        if not self.has_views:
            return answers
        inverse = torch.sigmoid(self.network(1 - image))
        across = torch.sigmoid(self.network(image.flip(3))).flip(3)
        down = torch.sigmoid(self.network((1 - image).flip(2))).flip(2)
        return (answers + inverse + across + down) / 4
