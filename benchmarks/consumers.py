"""Consumers that do nothing, for what is measured around them."""

from redis_consumer.consumers import TensorFlowServingConsumer


class NoOp(TensorFlowServingConsumer):
    """Says that it started, and is done."""

    def _consume(self, redis_hash: str) -> str:
        self.update_key(redis_hash, {"status": "started"})
        return self.final_status
