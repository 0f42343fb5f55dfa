"""Stands for models in tests: by functions, by files, or by the model that comes with the package."""

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
"""A function from (N, y, x, C) float32 to an array of N items, or to several by name; or an ONNX model: path, bytes."""

#: Version of every model that a test gives.
VERSION = 1
#: Name of a model that a test gives without one.
NAME = "Fake"

#: What makes a label image of the answer of `fake_model`, so that consumers may call `segment` with it.
_FAKE_CARD = b'postprocess = ["pixelwise"]\n'

_SPEC = ModelSpec((TensorSpec("image", np.dtype(np.float32), (None, None, None, None)),), ())


def named(model: Model | Mapping[str, Model] | None) -> dict[str, Model]:
    """Give each model a name; none for None, which stands for the packaged ones.

    Raises:
        TypeError, FileNotFoundError: as `check_models`.
    """
    if model is None:
        return {}
    check_models(model)
    return dict(model) if isinstance(model, Mapping) else {NAME: model}


def fields_of(models: Mapping[str, Model]) -> dict[str, str]:
    """Fields by which a job asks for the first of these models, or for the packaged one."""
    packaged = packaged_models()[0]
    name, version = (next(iter(models)), VERSION) if models else (packaged.name, packaged.version)
    return {"model_name": name, "model_version": str(version)}


def store(models: Mapping[str, Model], bucket: Storage) -> dict[str, Function]:
    """Put models of files into a bucket, each with the card beside it; give the functions that are left."""
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
    """A `ModelServer` of functions; it passes models that it doesn't know on to another one.

    Args:
        functions: by the name of their model, for any version.
        others: where all other models are served.
    """

    def __init__(self, functions: Mapping[str, Function], others: ModelServer) -> None:
        self._functions = functions
        self._others = others

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Say which tensors a model takes and gives, see `ModelServer.metadata`; a function takes an image alone."""
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
            ModelMismatch: a function gave something else than an array of as many items as it got, or several by name.
            ModelNotFound: there is no such model, here or elsewhere.
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
                    f"fake model {model.name}, output {name!r}: it gave {seen} for {batch.shape}; "
                    f"let the function return an array whose first axis is {len(batch)}",
                    model=str(model),
                )
        return check_outputs(None, outputs, model)

    def check(self) -> str:
        """Say what answers."""
        return f"functions answer for {', '.join(self._functions)}" if self._functions else self._others.check()

    def close(self) -> None:
        """Give back what the other server holds."""
        self._others.close()

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        """Let an error of a model that is nowhere name the functions too."""
        try:
            yield
        except ModelNotFound as error:
            if not self._functions:
                raise
            names = ", ".join(self._functions)
            raise ModelNotFound(f"{error}; functions of this test answer for {names}", model=error.model) from error
