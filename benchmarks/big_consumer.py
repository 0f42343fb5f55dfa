"""The consumer of the benchmark `big`: the usual one, with a cheap function that labels discs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer

Array = npt.NDArray[Any]


def connected(outputs: list[Array]) -> Array:
    """Label what is connected in the first output, (1, y, x, 1)."""
    from scipy import ndimage

    labels, _ = ndimage.label(outputs[0][0, ..., 0] > 0.5)
    return np.asarray(labels, np.int32)[np.newaxis, ..., np.newaxis]


class BigConsumer(ImageFileConsumer):
    """Knows the function ``connected``."""

    def prepare(self) -> None:
        """Make ready what every job needs."""
        super().prepare()
        settings.PROCESSING_FUNCTIONS["post"]["connected"] = connected
