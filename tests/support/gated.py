"""A consumer that ends a job when the test says so, loaded as ``CONSUMER_TYPE=support.gated:Gated``."""

from __future__ import annotations

import time

from redis_consumer.consumers import TensorFlowServingConsumer


class Gated(TensorFlowServingConsumer):
    """Runs a job until its field ``gate`` is ``open``, and notes each run.

    The field ``style`` says how the result is written: ``update_key``, in the way of the seed's example, or
    ``return``, by the status that is returned. ``output_url`` names the run it is of.
    """

    def _consume(self, redis_hash: str) -> str:
        attempt = self.job.attempt if self.job else 0
        self.redis.rpush("runs", f"{self.name} {attempt} {redis_hash}")
        self.update_key(redis_hash, {"status": "started"})
        while self.redis.hget(redis_hash, "gate") != "open":
            time.sleep(0.01)
        fields = {"output_url": f"by {self.name} in attempt {attempt}"}
        if self.redis.hget(redis_hash, "style") == "return":
            self.update_key(redis_hash, fields)
        else:
            self.update_key(redis_hash, {"status": self.final_status, **fields})
        return self.final_status
