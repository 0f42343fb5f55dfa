"""Consumers of archives and images that take their time in each phase, so that a kill finds them there."""

from __future__ import annotations

import time
from typing import Any

from redis_consumer.consumers import ImageFileConsumer, ZipFileConsumer

PAUSE_S = 0.04


class SlowImage(ImageFileConsumer):
    """Waits before its image."""

    def _consume(self, redis_hash: str) -> str:
        time.sleep(PAUSE_S)
        return super()._consume(redis_hash)


class SlowZip(ZipFileConsumer):
    """Waits before it takes an image out of an archive, and before it merges a result."""

    def why_skipped(self, name: str) -> str:
        """As for every archive."""
        time.sleep(PAUSE_S)
        return super().why_skipped(name)

    def child_jobs(self) -> Any:
        """As for every parent."""
        for child in super().child_jobs():
            time.sleep(PAUSE_S)
            yield child
