"""Finds models and reads their cards."""

from redis_consumer.models.card import Card, Tile, read_card
from redis_consumer.models.store import Bucket, ModelStore, packaged_models

__all__ = ["Bucket", "Card", "ModelStore", "Tile", "packaged_models", "read_card"]
