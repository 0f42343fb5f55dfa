"""A first consumer: measures where an image is sharp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from redis_consumer.consumers import Analysis, ImageFileConsumer
from redis_consumer.job import Job


class Focus(ImageFileConsumer):
    """Shows where an image is sharp, and measures how sharp it is."""

    def analyze(self, image: NDArray[Any], job: Job) -> Analysis:
        """Take the slope at each pixel: steep where edges are sharp."""
        slope = np.hypot(*np.gradient(image, axis=(1, 2)))
        return {"slope": slope, "sharpness": float(slope.mean())}
