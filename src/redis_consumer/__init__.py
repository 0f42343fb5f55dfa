"""Workers that turn microscopy images in a bucket into label images, at the scale of a Redis queue."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__version__ = "1.0.0.dev0"

# onnxruntime reads it when it is loaded, and else sends usage data to its vendor. A plug-in may load it before we do.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

#: Submodules that are attributes after a bare ``import redis_consumer``; each loads when first asked for.
_SUBMODULES = frozenset(
    {
        "consumers",
        "grpc_clients",
        "processing",
        "redis",
        "settings",
        "storage",
        "tracking",
        "utils",
    }
)


def __getattr__(name: str) -> ModuleType:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
