"""Tests the first consumer."""

from __future__ import annotations

import numpy as np
from focus import Focus

from redis_consumer import testing


class TestFocus(testing.ConsumerContract):
    """What every consumer must do."""

    consumer = Focus


def test_a_flat_image_is_not_sharp() -> None:
    """The example has nine nuclei with edges."""
    sharp = testing.run(Focus, testing.example_image())
    flat = testing.run(Focus, np.ones((64, 64, 1), np.uint16))
    assert float(sharp.fields["sharpness"]) > float(flat.fields["sharpness"]) == 0
    assert sharp.outputs["image_slope_0.tif"].shape == (128, 128)
