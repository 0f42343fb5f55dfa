"""Identifies the model that answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from redis_consumer.job import ModelId
from redis_consumer.serving.base import ModelServer, ModelSpec

#: What a digest is of: the weights, which decide the pixels; or only what a remote server shows of a model.
FILE, METADATA = "model file", "metadata"


@dataclass(frozen=True)
class ModelIdentity:
    """Identifies one version of a model.

    Attributes:
        version: the number of the version that answers, None where the server doesn't say.
        sha256: digest of what `digest_of` says.
        digest_of: `FILE`, or `METADATA`: names, types and shapes of the model's tensors, which other weights may share.
    """

    version: int | None
    sha256: str
    digest_of: str


def identify(server: ModelServer, model: ModelId) -> ModelIdentity:
    """Ask a model server which model it is; servers that remember metadata aren't asked again.

    Raises:
        ModelNotFound, ModelMismatch, ModelServerUnavailable: as `ModelServer.metadata`.
    """
    if hasattr(server, "identity"):
        found: ModelIdentity = server.identity(model)
        return found
    return ModelIdentity(model.version or None, spec_digest(server.metadata(model)), METADATA)


def spec_digest(spec: ModelSpec) -> str:
    """Give the SHA-256 of names, types and shapes of all tensors."""
    text = json.dumps(asdict(spec), default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
