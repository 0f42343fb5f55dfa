"""Divides items into calls of a model, and joins the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from redis_consumer.errors import ModelMismatch
from redis_consumer.serving.base import Array


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
