"""How many nuclei are larger than a size? The consumer of images with an option of its own.

Run it from this folder: ``CONSUMER_TYPE=counter:Counter QUEUE=count redis-consumer run``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from redis_consumer.consumers import ConsumerOptions, ImageFileConsumer


class Counter(ImageFileConsumer):
    """Counts the nuclei of an image that are larger than a size."""

    class Options(ConsumerOptions):
        """What a job, or the variable of the same name in upper case, may set."""

        min_size: int = Field(default=30, ge=0, description="Pixels of the smallest nucleus that counts")

    def run_functions(
        self, process_type: str, names: Iterable[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Drop what is too small from the label image (batch, y, x, 1) that the functions after the model give."""
        data = super().run_functions(process_type, names, data, options)
        if process_type == "post" and data.dtype.kind in "iu":
            sizes = np.bincount(data.ravel())
            data = np.where(sizes[data] < self.options.min_size, 0, data)
        return data
