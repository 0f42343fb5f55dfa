"""Fixtures of the contract tests: a web server, a bucket with an upload and a model, and workers that wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from support import onnx_models
from support.neighbours import Frontend
from support.redis_server import RedisServer
from support.worker import environment


@pytest.fixture
def frontend(redis_db: Any) -> Frontend:
    return Frontend(redis_db)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Holds ``uploads/0a1b.tif`` and the model ``Scaling:1``."""
    folder = tmp_path / "bucket"
    (folder / "uploads").mkdir(parents=True)
    tifffile.imwrite(folder / "uploads" / "0a1b.tif", np.full((24, 24), 7, np.uint16))
    onnx_models.save(folder / "models", "Scaling", 1, onnx_models.scaling(2.0))
    return folder


@pytest.fixture
def gated(redis_server: RedisServer, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Gives the variables of a worker whose jobs end when the test says so, see `support.gated`."""

    def gated(**settings: str) -> dict[str, str]:
        given = {"CONSUMER_TYPE": "support.gated:Gated", "GRACE_PERIOD": "0.2", **settings}
        return environment(redis_server, tmp_path.as_uri(), **given)

    return gated
