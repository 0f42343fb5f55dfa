"""Makes images of two channels, nuclei and membranes or cytoplasm, with the true labels of whole cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import segmentation
from training.synthetic import make_sample

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Cells:
    """A synthetic image of cells.

    Attributes:
        light: (Y, X) float32 in 0..1, the channel of nuclei.
        stain: (Y, X) float32, the channel of membranes or cytoplasm.
        nuclei: (Y, X) int32, true nuclei.
        cells: (Y, X) int32, true whole cells, with the labels of their nuclei.
        is_membrane: whether the stain shows membranes.
    """

    light: Floats
    stain: Floats
    nuclei: Labels
    cells: Labels
    is_membrane: bool


def draw_cells(rng: np.random.Generator, side: int = 256) -> Cells:
    """Draw cells around nuclei, alone and in clusters, whose sizes and places relative to the nuclei differ.

    Args:
        rng: decides all of it.
        side: of the image, in pixels.
    """
    sample = make_sample(rng, side)
    nuclei, count = sample.labels, int(sample.labels.max())
    distance = ndimage.distance_transform_edt(nuclei == 0)
    # Wavy distances and a reach of its own for each cell: borders are neither half-way nor at a fixed radius.
    waves = ndimage.gaussian_filter(rng.normal(size=(side, side)), 0.4 * sample.diameter)
    height = np.asarray(distance + rng.uniform(0.1, 0.6) * sample.diameter * waves / (waves.std() + 1e-6))
    territory = segmentation.watershed(height, nuclei)
    reach = sample.diameter * rng.uniform(0.15, 1.0) * np.exp(rng.normal(0, 0.35, count + 1))
    cells = np.where((distance <= reach[territory]) | (nuclei > 0), territory, 0).astype(np.int32)
    is_membrane = bool(rng.random() < 0.5)
    shades = np.exp(rng.normal(0, rng.uniform(0.1, 0.4), count + 1)) * (np.arange(count + 1) > 0)
    if is_membrane:
        light = segmentation.find_boundaries(cells, mode="inner") * shades[cells] + rng.uniform(0, 0.15) * (cells > 0)
        light = ndimage.gaussian_filter(light, rng.uniform(0.8, 1.8))
    else:
        light = shades[cells] * np.where(nuclei > 0, rng.uniform(0.3, 1.0), 1.0)
        inside = ndimage.distance_transform_edt(~segmentation.find_boundaries(cells))
        light = ndimage.gaussian_filter(light * np.clip(inside / (0.15 * sample.diameter), 0.3, 1), rng.uniform(0.8, 2))
    stain = light / light.max() + rng.uniform(0.02, 0.2)
    photons = np.exp(rng.uniform(np.log(60), np.log(1500)))
    stain = rng.poisson(stain * photons) / photons
    return Cells(sample.image, np.asarray(stain, np.float32), nuclei, cells, is_membrane)
