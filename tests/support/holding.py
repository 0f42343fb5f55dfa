"""A consumer of images that can hold its interpreter, loaded as ``CONSUMER_TYPE=support.holding:Holding``."""

from __future__ import annotations

import ctypes
import fcntl
from pathlib import Path
from typing import Any

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer

#: In the working directory: whoever has it locked decides when the function returns.
GATE = Path("gate")


def hold(outputs: list[Any]) -> Any:
    """Give the first output, once the gate can be locked; until then no other thread of the process runs."""
    with GATE.open("wb") as file:
        ctypes.PyDLL(None).flock(file.fileno(), fcntl.LOCK_EX)
    return outputs[0]


class Holding(ImageFileConsumer):
    """Knows the function ``hold``."""

    def prepare(self) -> None:
        super().prepare()
        settings.PROCESSING_FUNCTIONS["post"]["hold"] = hold
