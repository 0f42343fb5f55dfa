"""The pytest fixtures of this package. They import other modules only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redis_consumer.images.image import Array
    from redis_consumer.testing.job_run import JobRun


@pytest.fixture
def run_consumer() -> Callable[..., JobRun]:
    """`redis_consumer.testing.run`: run a job through a consumer without a Redis, bucket or model server."""
    from redis_consumer.testing.workbench import run

    return run


@pytest.fixture
def example_image() -> Array:
    """`redis_consumer.testing.example_image`: (128, 128, 1) uint16 with 9 bright nuclei."""
    from redis_consumer.testing import images

    return images.example_image()


@pytest.fixture
def fake_model() -> Callable[[Array], Array]:
    """`redis_consumer.testing.fake_model`: a model that marks bright pixels."""
    from redis_consumer.testing import images

    return images.fake_model
