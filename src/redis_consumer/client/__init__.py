"""Submits jobs, waits for their results and reads the state of queues. It prints nothing but progress in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.client.client import AsyncClient, Client
    from redis_consumer.client.image_result import ImageResult

__all__ = ["AsyncClient", "Client", "ImageResult"]


def __getattr__(name: str) -> Any:
    # Late, since commands import only some modules of this package.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from redis_consumer.client import client

    return getattr(client, name)
