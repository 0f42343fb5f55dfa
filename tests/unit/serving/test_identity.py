from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.job import ModelId
from redis_consumer.serving.base import ModelSpec, TensorSpec
from redis_consumer.serving.identity import FILE, METADATA, identify, spec_digest
from redis_consumer.serving.onnx.server import OnnxServer
from support import onnx_models

SPEC = ModelSpec((TensorSpec("image", np.dtype(np.float32), (None, 8)),), ())


class Remote:
    """A server that shows metadata only."""

    def metadata(self, model: ModelId) -> ModelSpec:
        return SPEC


def test_a_server_that_shows_metadata_only_is_told_by_them() -> None:
    server: Any = Remote()
    found = identify(server, ModelId("Nuclei", 3))
    assert (found.version, found.sha256, found.digest_of) == (3, spec_digest(SPEC), METADATA)
    assert identify(server, ModelId("Nuclei")).version is None


def test_other_tensors_have_another_digest() -> None:
    other = ModelSpec((TensorSpec("image", np.dtype(np.float16), (None, 8)),), ())
    assert spec_digest(other) != spec_digest(SPEC)


def test_a_model_in_this_process_is_told_by_its_file(tmp_path: Path) -> None:
    paths = [onnx_models.save(tmp_path, "Scaling", version, onnx_models.scaling(version)) for version in (1, 2)]
    server = OnnxServer(lambda model: paths[(model.version or 2) - 1])
    one, latest = identify(server, ModelId("Scaling", 1)), identify(server, ModelId("Scaling"))
    assert (one.version, latest.version, one.digest_of) == (1, 2, FILE)
    assert one.sha256 != latest.sha256
    server.close()
