"""Provides models for tests: functions, files, or the model that comes with the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.models import packaged_models
from redis_consumer.serving.base import Array, ModelServer, ModelSpec, OnRetry, TensorSpec, check_inputs, check_outputs
from redis_consumer.testing.arguments import check_models
from redis_consumer.testing.images import fake_model

if TYPE_CHECKING:
    from redis_consumer.storage import Storage

Function = Callable[[Array], Array | Mapping[str, Array]]

Model = Function | str | Path | bytes
"""A function that maps (N, y, x, C) float32 to an array of N items, or to several by name; or an ONNX file or bytes."""

#: Version of every model that a test gives.
VERSION = 1
#: Name of a model that a test gives without one.
NAME = "Fake"

#: Name of the packaged model of jobs for which a test gives none.
PACKAGED_NAME = "NuclearSegmentation"

#: Card of `fake_model`, so that `segment` makes a label image from its output.
_FAKE_CARD = b'postprocess = ["pixelwise"]\n'

_SPEC = ModelSpec((TensorSpec("image", np.dtype(np.float32), (None, None, None, None)),), ())


def named(model: Model | Mapping[str, Model] | None) -> dict[str, Model]:
    """Return each model a name. None, which stands for the packaged model, gives no names.

    Raises:
        TypeError, FileNotFoundError: as `check_models`.
    """
    if model is None:
        return {}
    check_models(model)
    return dict(model) if isinstance(model, Mapping) else {NAME: model}


def fields_of(models: Mapping[str, Model]) -> dict[str, str]:
    """Return the job fields that name the first of these models, or the packaged one."""
    packaged = next(model for model in packaged_models() if model.name == PACKAGED_NAME)
    name, version = (next(iter(models)), VERSION) if models else (packaged.name, packaged.version)
    return {"model_name": name, "model_version": str(version)}


def store(models: Mapping[str, Model], bucket: Storage) -> dict[str, Function]:
    """Upload models that are files, with their cards, and return the models that are functions."""
    functions: dict[str, Function] = {}
    for name, model in models.items():
        if isinstance(model, bytes):
            bucket.write_bytes(f"models/{name}/{VERSION}/model.onnx", model)
        elif isinstance(model, (str, Path)):
            path = Path(model)
            bucket.upload_file(path, f"models/{name}/{VERSION}/model.onnx")
            for beside in (path.with_name(f"{path.name}.data"), path.with_name("card.toml")):
                if beside.is_file():
                    kept = "card.toml" if beside.name == "card.toml" else "model.onnx.data"
                    bucket.upload_file(beside, f"models/{name}/{VERSION}/{kept}")
        else:
            functions[name] = model
            if model is fake_model:
                bucket.write_bytes(f"models/{name}/{VERSION}/card.toml", _FAKE_CARD)
    return functions


class FakeServer:
    """A `ModelServer` that calls functions, and another server for all other models.

    Args:
        functions: functions by name of the model, for any version.
        others: server of all other models.
    """

    def __init__(self, functions: Mapping[str, Function], others: ModelServer) -> None:
        self._functions = functions
        self._others = others

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Return the tensors of a model, see `ModelServer.metadata`. The only input of a function is an image."""
        if model.name in self._functions:
            return _SPEC
        with self._named_in_errors():
            return self._others.metadata(model, on_retry=on_retry)

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`.

        Raises:
            ModelMismatch: a function did not return an array with as many items as its batch, or several by name.
            ModelNotFound: neither the functions nor the other server have this model.
        """
        function = self._functions.get(model.name)
        if function is None:
            with self._named_in_errors():
                return self._others.predict(model, inputs, timeout_s=timeout_s, on_retry=on_retry)
        (batch,) = check_inputs(_SPEC, inputs, model).values()
        answer = function(batch)
        outputs = dict(answer) if isinstance(answer, Mapping) else {"prediction": answer}
        for name, output in outputs.items():
            if not isinstance(output, np.ndarray) or output.shape[:1] != batch.shape[:1]:
                seen = output.shape if isinstance(output, np.ndarray) else type(output).__name__
                raise ModelMismatch(
                    f"fake model {model.name}, output {name!r}: it returned {seen} for {batch.shape}; "
                    f"return an array whose first axis is {len(batch)}",
                    model=str(model),
                )
        return check_outputs(None, outputs, model)

    def check(self) -> str:
        """Describe the models that are available."""
        return f"functions are used for {', '.join(self._functions)}" if self._functions else self._others.check()

    def close(self) -> None:
        """Close the other server."""
        self._others.close()

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        """Add the names of the functions to the error for an unknown model."""
        try:
            yield
        except ModelNotFound as error:
            if not self._functions:
                raise
            names = ", ".join(self._functions)
            raise ModelNotFound(f"{error}; this test has functions for {names}", model=error.model) from error
