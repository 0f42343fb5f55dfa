"""Consumers for measurements: one does nothing, the other measures what its stages cost."""

import time
from collections.abc import Mapping
from typing import Any

from redis_consumer.consumers import ImageFileConsumer, TensorFlowServingConsumer


class NoOp(TensorFlowServingConsumer):
    """Says that it started, and is done."""

    def _consume(self, redis_hash: str) -> str:
        self.update_key(redis_hash, {"status": "started"})
        return self.final_status


class Clocked(ImageFileConsumer):
    """Writes, next to a stage's ``…_time``, the seconds of the processor that this process used in it: ``…_cpu``."""

    def update_key(self, redis_hash: str, data: Mapping[str, Any] | None = None) -> None:
        """As of every consumer."""
        fields = dict(data or {})
        now = time.process_time()
        used_s, self._used = now - getattr(self, "_used", now), now
        stages = [name.removesuffix("_time") for name in fields if name.endswith("_time") and name != "total_time"]
        super().update_key(redis_hash, {**fields, **{f"{stage}_cpu": f"{used_s:.6f}" for stage in stages}})


class Reporting(NoOp):
    """Asks Redis for as much as a job with an image does, and does nothing else."""

    def _consume(self, redis_hash: str) -> str:
        for _ in range(4):
            self.update_key(redis_hash, {"status": "started", "prediction_time": "0.012345"})
        return super()._consume(redis_hash)
