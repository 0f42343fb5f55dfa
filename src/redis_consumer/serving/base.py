"""What a model server is: names, shapes and predictions, whoever serves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from redis_consumer.job import ModelId

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input or output.

    Attributes:
        name: the tensor's name in requests and replies.
        dtype: numpy dtype of its elements.
        shape: one entry an axis, None where any size is taken; None as a whole where even the rank is free.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class ModelSpec:
    """Inputs and outputs of a model, each sorted by name, so that their order never depends on the server."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class ModelServer(Protocol):
    """Where models are served. Implementations may be called from several threads."""

    def metadata(self, model: ModelId) -> ModelSpec:
        """Say which tensors a model takes and gives.

        Raises:
            ModelNotFound: there is no such model.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """

    def predict(self, model: ModelId, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a model on one batch.

        Args:
            model: which model.
            inputs: an array for each input by name, axis 0 is the batch.

        Returns:
            An array for each output by name.

        Raises:
            ModelNotFound: there is no such model.
            ModelMismatch: the server refuses the inputs: name, dtype or shape.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """

    def check(self) -> str:
        """Ask the server for a sign of life, once, and say in words what answered.

        Raises:
            ModelServerUnavailable: it gives none.
        """

    def close(self) -> None:
        """Give back connections and memory."""
