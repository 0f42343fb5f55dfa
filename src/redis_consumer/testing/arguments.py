"""Checks the arguments of tests, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.job import OWN_FIELDS

if TYPE_CHECKING:
    from redis_consumer.consumers import Consumer

#: Fields in `OWN_FIELDS` that producers write.
_PRODUCERS = frozenset({"input_file_name", "original_name", "url", "created_at", "identity_upload"})


def check_image(image: object) -> None:
    """Refuse a value that is not an input.

    Raises:
        TypeError: not a path, an array of numbers or bytes.
        ValueError: an empty text.
    """
    if isinstance(image, str) and not image:
        raise ValueError("image: is an empty text, which means the working directory; give the path of a file")
    if not (isinstance(image, (str, Path, bytes)) or _is_array(image)):
        raise TypeError(f"image: is {_kind(image)}; give a path, an array of numbers, or the bytes of a file")


def _is_array(image: object) -> bool:
    try:
        array = np.asarray(image)
    except ValueError:  # lists of different lengths
        return False
    return array.ndim > 0 and array.dtype.kind in "biufc"


def check_models(model: object) -> None:
    """Refuse a value that is not a model, or not several models by name.

    Raises:
        TypeError: a model is not a function, a path or bytes, or a name is not a text.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(model, Mapping):
        _check_model(model, "model")
        return
    for name, one in model.items():
        if not (isinstance(name, str) and name):
            raise TypeError(f"model: the name {name!r} is not a text; give the name that jobs use for the model")
        _check_model(one, f"model {name!r}")


def _check_model(model: object, what: str) -> None:
    if isinstance(model, (str, Path)) and not Path(model).is_file():
        raise FileNotFoundError(f"{what}: there is no file {str(model)!r}; give the path of an ONNX model")
    if not (isinstance(model, (str, Path, bytes)) or callable(model)):
        raise TypeError(
            f"{what}: is {_kind(model)}; give a function from batch to array, or path or bytes of an ONNX model"
        )


def checked_children(children: object) -> dict[str, type[Consumer] | str]:
    """Return the consumer of each queue. Names of queues are converted to lower case.

    Raises:
        TypeError: not a mapping from queues to consumers.
    """
    if children is not None and not isinstance(children, Mapping):
        raise TypeError(f'children: is {_kind(children)}; give a consumer by its queue, e.g. {{"predict": MyConsumer}}')
    return {str(queue).lower(): consumer for queue, consumer in (children or {}).items()}


def check_fields(job_fields: Mapping[str, object]) -> None:
    """Refuse fields of a job that workers write.

    Raises:
        ValueError: there are such fields; the message names them.
    """
    taken = sorted(OWN_FIELDS.difference(_PRODUCERS).intersection(job_fields))
    if taken:
        raise ValueError(f"field {', '.join(taken)}: is written by workers; leave it out of the job's fields")


def check_bad_inputs(bad_inputs: object) -> None:
    """Refuse a value that is not a mapping from file names to bytes.

    Raises:
        TypeError: another type; the message names it.
    """
    wanted = 'give bytes by the name of each file, e.g. {"empty.tif": b""}'
    if not isinstance(bad_inputs, Mapping):
        raise TypeError(f"bad_inputs: is {_kind(bad_inputs)}; {wanted}")
    for name, content in bad_inputs.items():
        if not (isinstance(name, str) and isinstance(content, bytes)):
            raise TypeError(f"bad_inputs: {name!r} is {_kind(content)}; {wanted}")


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
