"""Defines what every model server offers: names, shapes, predictions, identity of a model, and calls in batches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId

Array = npt.NDArray[Any]

OnRetry = Callable[[int, str], None]
"""Called before each repeated call with the number of calls that failed so far and the last one's gRPC code."""

#: What a digest is of: the weights, which decide the pixels; or only what a remote server shows of a model.
FILE, METADATA = "model file", "metadata"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input or output.

    Attributes:
        name: the tensor's name in requests and replies.
        dtype: numpy dtype of its elements.
        shape: one entry an axis, None if any size is taken; None as a whole where even the rank is free.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class ModelSpec:
    """Inputs and outputs of a model, each sorted by name, so that their order never depends on the server."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelIdentity:
    """Identifies one version of a model.

    Attributes:
        version: the number of the version that answers, None if the server doesn't say.
        sha256: digest of what `digest_of` says.
        digest_of: `FILE`, or `METADATA`: names, types and shapes of the model's tensors, which other weights may share.
    """

    version: int | None
    sha256: str
    digest_of: str


class ModelServer(Protocol):
    """Where models are served. Implementations may be called from several threads."""

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Return which tensors a model takes and gives.

        Args:
            model: which model.
            on_retry: called before each repeated call; never called by a server that has nothing to retry.

        Raises:
            ModelNotFound: there is no such model.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch.

        Args:
            model: which model.
            inputs: an array for each input by name, axis 0 is the batch.
            timeout_s: seconds allowed for one try, None for the server's usual; a run in this process isn't cut short.
            on_retry: called before each repeated call; never called by a server that has nothing to retry.

        Returns:
            An array for each output, by name.

        Raises:
            ModelNotFound: there is no such model.
            ModelMismatch: the server refuses the inputs: name, dtype or shape.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """

    def check(self) -> str:
        """Check once that the server responds, and describe what responds.

        Raises:
            ModelServerUnavailable: it doesn't respond.
        """

    def close(self) -> None:
        """Close connections and free memory."""


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
    """Return the SHA-256 of names, types and shapes of all tensors."""
    text = json.dumps(asdict(spec), default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array], model: ModelId) -> dict[str, Array]:
    """Compare arrays with what a model takes, and cast those of another dtype where no kind of number is lost.

    Args:
        spec: what the model takes.
        inputs: an array for each input by name.
        model: which model, for messages.

    Returns:
        The arrays in the model's dtypes; those that had them already are the same objects.

    Raises:
        ModelMismatch: a name is missing or unknown, or a dtype or shape doesn't fit.
    """
    wanted = {tensor.name for tensor in spec.inputs}
    if wanted != set(inputs):
        raise ModelMismatch(
            f"model {model}: it takes {_listed(wanted)}, but got {_listed(inputs)}; name the inputs as the model does",
            model=str(model),
        )
    return {tensor.name: _checked(tensor, inputs[tensor.name], model) for tensor in spec.inputs}


def check_outputs(spec: ModelSpec | None, outputs: Mapping[str, Array], model: ModelId) -> dict[str, Array]:
    """Compare the outputs with those that the model declares.

    Args:
        spec: what the model gives; None if that is unknown, so that only the values are checked.
        outputs: an array for each output by name.
        model: which model, for messages.

    Returns:
        The same arrays, sorted by name.

    Raises:
        ModelMismatch: an output is missing or unknown, its dtype or shape is another, or it holds NaN.
    """
    if spec is not None:
        wanted = {tensor.name for tensor in spec.outputs}
        if wanted != set(outputs):
            raise ModelMismatch(
                f"model {model}: the server gave the outputs {_listed(outputs)}, but its metadata say "
                f"{_listed(wanted)}; check the server",
                model=str(model),
            )
        for tensor in spec.outputs:
            _check_output(tensor, outputs[tensor.name], model)
    for name, array in outputs.items():
        if array.dtype.kind in "fc" and array.size and np.isnan(array.min()):
            raise ModelMismatch(
                f"model {model}, output {name!r}: it holds NaN values; check the image and the model",
                model=str(model),
            )
    return dict(sorted(outputs.items()))


def batch_size_for(shapes: Sequence[Sequence[int]], max_batch_size: int, min_model_size: int) -> int:
    """Choose a batch size that shrinks as the model's inputs grow (contract, section 4.4), at least 1.

    A model whose inputs fix the number of items gets that many.

    >>> batch_size_for([(-1, 256, 256, 1)], max_batch_size=64, min_model_size=128)
    16

    Args:
        shapes: shape of each input, batch first, channels last, -1 for a free size.
        max_batch_size: items a call for an input of `min_model_size` and one channel.
        min_model_size: side of that input in pixels.
    """
    fixed = [shape[0] for shape in shapes if shape[0] > 0]
    if fixed:
        return min(fixed)
    ratio = 1.0
    for shape in shapes:
        ratio *= math.prod(size / min_model_size for size in shape[1:-1] if size > 0) * abs(shape[-1])
    return max(1, int(max_batch_size // ratio)) if ratio else max_batch_size


def predict_in_batches(
    predict: Callable[[Mapping[str, Array]], list[Array]], inputs: Mapping[str, Array], batch_size: int
) -> list[Array]:
    """Run a model on any number of items by calls of at most `batch_size` of them.

    Args:
        predict: runs one batch.
        inputs: an array for each input by name, axis 0 counts the items.
        batch_size: items a call.

    Returns:
        What `predict` gives, joined along axis 0.

    Raises:
        ModelMismatch: the inputs differ in their number of items, or there are none.
    """
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1 or 0 in counts:
        raise ModelMismatch(f"model inputs: they have {sorted(counts)} items; give each the same number, at least 1")
    starts = range(0, counts.pop(), batch_size)
    replies = [predict({name: array[at : at + batch_size] for name, array in inputs.items()}) for at in starts]
    return [np.concatenate(parts) for parts in zip(*replies, strict=True)]


def _check_output(tensor: TensorSpec, array: Array, model: ModelId) -> None:
    # A dtype of object stands for one that arrays lack.
    if not _fits(tensor.shape, array.shape) or tensor.dtype not in (array.dtype, np.dtype(object)):
        raise ModelMismatch(
            f"model {model}, output {tensor.name!r}: it has dtype {array.dtype} and shape {list(array.shape)}, but the "
            f"metadata say {tensor.dtype} and {_shape_text(tensor.shape)}; check the server",
            model=str(model),
        )


def _checked(tensor: TensorSpec, array: Array, model: ModelId) -> Array:
    if not _fits(tensor.shape, array.shape):
        raise ModelMismatch(
            f"model {model}, input {tensor.name!r}: the array's shape is {list(array.shape)}, but the model takes "
            f"{_shape_text(tensor.shape)}; check channels and tile size",
            model=str(model),
        )
    if not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise ModelMismatch(
            f"model {model}, input {tensor.name!r}: the array's dtype is {array.dtype}, but the model takes "
            f"{tensor.dtype}; convert it first",
            model=str(model),
        )
    return array.astype(tensor.dtype, copy=False)


def _fits(wanted: tuple[int | None, ...] | None, seen: tuple[int, ...]) -> bool:
    if wanted is None:
        return True
    return len(wanted) == len(seen) and all(
        size is None or size == have for size, have in zip(wanted, seen, strict=True)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"


def _shape_text(shape: tuple[int | None, ...] | None) -> str:
    return "any" if shape is None else "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
