"""Helm for tests: the real engine, one for the whole run. The fixture skips tests if there is none."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.charts import Chart


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    """The Helm chart, ready to be rendered."""
    if importlib.util.find_spec("helm_python") is None and "CI" not in os.environ:
        pytest.skip("There is no Helm engine for this machine")
    from support.charts import Chart

    with Chart() as started:
        yield started
