"""Tools to test consumers without a Redis, bucket or model server.

Each name is imported at first use. Needs the extra ``testing``: ``pip install 'kiosk-redis-consumer[testing]'``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.testing.contract import ConsumerContract
    from redis_consumer.testing.images import example_image, fake_model
    from redis_consumer.testing.job_run import JobRun
    from redis_consumer.testing.models import Model
    from redis_consumer.testing.workbench import Workbench, run

__all__ = ["ConsumerContract", "JobRun", "Model", "Workbench", "example_image", "fake_model", "run"]

_MODULES = {
    "ConsumerContract": "contract",
    "JobRun": "job_run",
    "Model": "models",
    "Workbench": "workbench",
    "example_image": "images",
    "fake_model": "images",
    "run": "workbench",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
