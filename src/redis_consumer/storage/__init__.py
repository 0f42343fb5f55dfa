"""Downloads objects from the bucket, uploads objects to it, and makes links to them (contract, section 3)."""

from __future__ import annotations

from redis_consumer.storage.bucket import Storage
from redis_consumer.storage.older import GoogleStorage, S3Storage, StorageException, get_client
from redis_consumer.storage.stores import StorageOptions

__all__ = ["GoogleStorage", "S3Storage", "Storage", "StorageException", "StorageOptions", "get_client"]
