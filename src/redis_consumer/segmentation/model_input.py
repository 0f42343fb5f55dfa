"""Converts images to the form of a model's inputs, and describes these inputs (contract, 4.4 and 5.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from redis_consumer.errors import InvalidImage, ModelMismatch
from redis_consumer.serving.base import Array, ModelSpec, TensorSpec
from redis_consumer.text import quoted, whole

Input = Mapping[str, str]


def inputs_of_metadata(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """Read the inputs from a model's metadata.

    Args:
        metadata: TensorFlow Serving's reply in protobuf's JSON form, or the object ``inputs`` in it.

    Returns:
        For each input ``in_tensor_name``, ``in_tensor_dtype`` and ``in_tensor_shape``.

    Raises:
        KeyError: it has neither form, or an input lacks dtype or shape.
    """
    inputs = metadata
    if "tensorShape" not in metadata.get("metadata", {"tensorShape": None}):
        inputs = metadata["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    if not inputs:
        raise KeyError("inputs")
    return [
        {
            "in_tensor_name": name,
            "in_tensor_dtype": entry["dtype"],
            "in_tensor_shape": ",".join(str(dim["size"]) for dim in entry["tensorShape"].get("dim", ())),
        }
        for name, entry in inputs.items()
    ]


def metadata_of_inputs(model_name: str, model_version: int | str, inputs: Iterable[Input]) -> dict[str, Any]:
    """Write inputs as TensorFlow Serving's metadata in protobuf's JSON form, see `inputs_of_metadata`."""
    entries = {
        each["in_tensor_name"]: {
            "dtype": each["in_tensor_dtype"],
            "tensorShape": {"dim": [{"size": str(size)} for size in sizes_of(each)]},
            "name": each["in_tensor_name"],
        }
        for each in inputs
    }
    signatures = {"signatureDef": {"serving_default": {"inputs": entries}}}
    return {
        "modelSpec": {"name": model_name, "version": str(model_version)},
        "metadata": {"signature_def": signatures},
    }


def sizes_of(model_input: Input) -> list[int]:
    """Return the sizes of an input's axes, -1 for any size; none if their number is also free."""
    return [int(size) for size in model_input["in_tensor_shape"].split(",") if size]


def spec_of(inputs: Iterable[Input]) -> ModelSpec:
    """Inputs as `redis_consumer.serving.base.ModelSpec` has them; their types and the outputs are not known."""
    return ModelSpec(
        tuple(
            TensorSpec(
                each["in_tensor_name"],
                np.dtype(np.float32),
                tuple(None if size < 0 else size for size in sizes_of(each)) or None,
            )
            for each in inputs
        ),
        (),
    )


def fit_inputs(
    image: Array | Sequence[Array], inputs: Sequence[Input], model: str, channels: Any, max_yx: tuple[int, int]
) -> Array | list[Array]:
    """Convert images to the axes order of a model, see `TensorFlowServingConsumer.validate_model_input`.

    Args:
        image: one image, or a list with one for each input.
        inputs: inputs of the model.
        model: which model, for messages.
        channels: indices of those to use, joined by commas or as a list; a list of such for each image.
        max_yx: largest height and width.

    Raises:
        ModelMismatch, InvalidImage: as `fit_input`; or there are more or fewer images than inputs.
    """
    if isinstance(image, np.ndarray):
        return fit_input(image, sizes_of(inputs[0]), model, _indices(channels), max_yx)
    images = [np.asarray(each) for each in image]
    if len(images) != len(inputs):
        raise ModelMismatch(f"model {model}: takes {len(inputs)} images, not {len(images)}; give one for each input")
    wanted = _indices_of_each(channels, len(images), model)
    fitted = zip(images, inputs, wanted, strict=True)
    return [fit_input(each, sizes_of(described), model, indices, max_yx) for each, described, indices in fitted]


def fit_input(image: Array, sizes: Sequence[int], model: str, indices: Sequence[int], max_yx: tuple[int, int]) -> Array:
    """Convert one image to the axes order of one input of a model.

    Args:
        image: as many axes as the input; the smallest besides the first is taken for the channels.
        sizes: sizes of the input, -1 for any; without sizes, every image fits.
        model: which model, for messages.
        indices: indices of the channels to use; all by default.
        max_yx: largest height and width.

    Raises:
        ModelMismatch: rank or number of channels differ from the model's.
        InvalidImage: it is larger than `max_yx`.
    """
    if not sizes:
        return image
    wanted = f"{model} takes {len(sizes)} axes ({','.join(map(str, sizes))})"
    if image.ndim != len(sizes) or image.ndim < 3:
        raise ModelMismatch(f"image: has {image.ndim} axes {image.shape}, {wanted}; send one of that rank")
    image = np.moveaxis(image, 1 + _channel_axis(image.shape[1:]), -1)
    if indices:
        image = _selected(image, indices, sizes[-1], wanted)
    if sizes[-1] > 0 and image.shape[-1] != sizes[-1]:
        raise ModelMismatch(f"image: has {image.shape[-1]} channels, {wanted}; name those to use in field channels")
    height, width = image.shape[-3:-1]
    if height > max_yx[0] or width > max_yx[1]:
        raise InvalidImage(f"image: {height} x {width} pixels is more than MAX_IMAGE_HEIGHT and MAX_IMAGE_WIDTH allow")
    return image


def _selected(image: Array, indices: Sequence[int], count: int, wanted: str) -> Array:
    if any(not 0 <= index < image.shape[-1] for index in indices):
        named = ",".join(map(str, indices))
        raise ModelMismatch(f"field channels: {quoted(str(named))} names more than the image's {image.shape[-1]}")
    if count > 0 and len(indices) != count:
        raise ModelMismatch(f"field channels: names {len(indices)} channels, {wanted}; name as many as it takes")
    return image[..., list(indices)]


def dimension_orders(image: Array | Sequence[Array], inputs: Sequence[Input], model: str) -> list[str]:
    """Name the axes of images besides the first, such as ``YXC``, see `TensorFlowServingConsumer`.

    Raises:
        ModelMismatch: an image has another number of axes than its input, or there are more images than inputs.
    """
    images = [image] if isinstance(image, np.ndarray) else [np.asarray(each) for each in image]
    if len(images) > len(inputs):
        raise ModelMismatch(f"model {model}: takes {len(inputs)} images, not {len(images)}; give one for each input")
    orders = []
    for each, described in zip(images, inputs, strict=False):
        rank = len(sizes_of(described)) or each.ndim
        if each.ndim not in {rank, rank - 1} or not 4 <= rank <= 5:
            raise ModelMismatch(
                f"image: has {each.ndim} axes {each.shape}, {model} takes {rank}; send one of that rank"
            )
        shape = each.shape[1 - rank :]  # an image can have no batch axis
        order = list("ZYX"[5 - rank :])
        order.insert(_channel_axis(shape), "C")
        orders.append("".join(order))
    return orders


def _channel_axis(shape: Sequence[int]) -> int:
    """Return the smallest axis. Of several, the last is returned, because most images have their channels there."""
    return len(shape) - 1 - int(np.argmin(shape[::-1]))


def _indices(channels: Any) -> list[int]:
    if channels is None:
        return []
    parts = channels.split(",") if isinstance(channels, str) else np.atleast_1d(np.asarray(channels, object)).tolist()
    try:
        return [whole(str(part)) for part in parts if part is not None and str(part).strip()]
    except (TypeError, ValueError) as error:
        raise ModelMismatch(
            f"field channels: {quoted(str(channels))} holds something else than indices; give e.g. 0,1"
        ) from error


def _indices_of_each(channels: Any, count: int, model: str) -> list[list[int]]:
    if channels is None or isinstance(channels, (str, int)) or not any(map(_is_several, channels)):
        return [_indices(channels)] * count
    if len(channels) != count:
        raise ModelMismatch(
            f"field channels: has {len(channels)} lists, {model} takes {count} images; give one for each"
        )
    return [_indices(each) for each in channels]


def _is_several(channels: object) -> bool:
    return "," in channels if isinstance(channels, str) else isinstance(channels, (list, tuple, np.ndarray))
