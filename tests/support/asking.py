"""A consumer whose jobs ask the model server for one small image, loaded as ``CONSUMER_TYPE=support.asking:Asking``."""

from __future__ import annotations

import numpy as np

from redis_consumer.consumers import TensorFlowServingConsumer


class Asking(TensorFlowServingConsumer):
    """Sends an image whose pixels all are the job's field ``pixel`` to the model ``Scaling``; notes each run."""

    def _consume(self, redis_hash: str) -> str:
        fields = self.redis.hgetall(redis_hash)
        self.redis.rpush("runs", redis_hash)
        self.update_key(redis_hash, {"status": "predicting"})
        answer = self.grpc_image(np.full((4, 4, 1), float(fields["pixel"]), np.float32), "Scaling", 1)
        self.update_key(redis_hash, {"status": self.final_status, "answer": f"{np.asarray(answer).max():g}"})
        return self.final_status
