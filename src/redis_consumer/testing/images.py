"""An example image and a simple model for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

_SIDE_PX, _RADIUS_PX, _ROWS = 128, 13.0, 3


def example_image() -> Array:
    """Return a small image with 9 bright, round nuclei on a dark background. It is always the same.

    Returns:
        (128, 128, 1) uint16. Nuclei are about 26 px wide and brighter than 2,000. The background is darker than 1,000.
    """
    import numpy as np

    random = np.random.default_rng(7)
    centres = (np.arange(_ROWS) + 0.5) * _SIDE_PX / _ROWS
    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX]
    image: Array = random.normal(500, 40, (_SIDE_PX, _SIDE_PX))
    for row in centres:
        for column in centres:
            top, left = random.uniform(-4, 4, 2)
            distance = np.hypot(y - row - top, x - column - left)
            image += random.uniform(3000, 6000) / (1 + np.exp((distance - _RADIUS_PX) / 1.5))
    pixels: Array = image.round().clip(0, 65535).astype(np.uint16)
    return pixels[..., np.newaxis]


def fake_model(batch: Array) -> Array:
    """Act as a model that marks bright pixels.

    >>> import numpy as np
    >>> fake_model(np.array([0, 1, 9], np.float32).reshape(1, 1, 3, 1)).ravel().tolist()
    [0.0, 0.0, 1.0]

    In `run`, `Workbench` and `ConsumerContract` it has a card, so `segment` makes a label image from its output.

    Args:
        batch: (N, y, x, C) float32.

    Returns:
        (N, y, x, 1) float32: 1 where the mean of the channels is above the middle between the image's darkest
        and brightest pixel, 0 elsewhere.
    """
    import numpy as np

    grey = batch.mean(axis=-1, keepdims=True)
    low, high = (bound(grey, axis=(1, 2, 3), keepdims=True) for bound in (np.min, np.max))
    is_bright: Array = grey > (low + high) / 2
    return is_bright.astype(np.float32)
