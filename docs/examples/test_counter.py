"""Does `counter.py` count? Run it from this folder: ``pytest test_counter.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from counter import Counter

from redis_consumer import testing


@pytest.mark.parametrize(("min_size", "count"), [(30, "9"), (100_000, "0")])
def test_it_counts_what_is_large_enough(
    run_consumer: Callable[..., testing.JobRun], example_image: Any, min_size: int, count: str
) -> None:
    """Nuclei of the example have some 500 pixels."""
    run = run_consumer(Counter, example_image, min_size=min_size)
    assert run.status == "done", run.reason
    assert run.fields["objects"] == count
    assert run.outputs["image_feature_0.tif"].max() == int(count)


class TestContract(testing.ConsumerContract):
    """What holds for every consumer."""

    consumer = Counter
    model = None
