"""Can what an author gives a test be used, and if not, what is wrong with it?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.job import OWN_FIELDS

if TYPE_CHECKING:
    from redis_consumer.consumers import Consumer

#: Of the fields that tell of a job's own life, those that its producer writes.
_PRODUCERS = frozenset({"input_file_name", "original_name", "url", "created_at", "identity_upload"})


def check_image(image: object) -> None:
    """Refuse what is no input.

    Raises:
        TypeError: it is neither a path, an array of numbers, nor bytes.
        ValueError: it is an empty text.
    """
    if isinstance(image, str) and not image:
        raise ValueError("image: is an empty text, which would be the working directory; give the path of a file")
    if not (isinstance(image, (str, Path, bytes)) or _is_array(image)):
        raise TypeError(f"image: is {_kind(image)}; give a path, an array of numbers, or the bytes of a file")


def _is_array(image: object) -> bool:
    try:
        array = np.asarray(image)
    except ValueError:  # lists of different lengths
        return False
    return array.ndim > 0 and array.dtype.kind in "biufc"


def check_models(model: object) -> None:
    """Refuse what can't answer for a model, one or several by name.

    Raises:
        TypeError: it, or one of them, is neither a function, a path, nor bytes; or a name is no text.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(model, Mapping):
        _check_model(model, "model")
        return
    for name, one in model.items():
        if not (isinstance(name, str) and name):
            raise TypeError(f"model: the name {name!r} is no text; give the name by which jobs ask for the model")
        _check_model(one, f"model {name!r}")


def _check_model(model: object, what: str) -> None:
    if isinstance(model, (str, Path)) and not Path(model).is_file():
        raise FileNotFoundError(f"{what}: there is no file {str(model)!r}; give the path of an ONNX model")
    if not (isinstance(model, (str, Path, bytes)) or callable(model)):
        raise TypeError(
            f"{what}: is {_kind(model)}; give a function from batch to array, or path or bytes of an ONNX model"
        )


def checked_children(children: object) -> dict[str, type[Consumer] | str]:
    """Give the consumer of each queue, whose name is in lower case as children's are.

    Raises:
        TypeError: it names no queues.
    """
    if children is not None and not isinstance(children, Mapping):
        raise TypeError(f'children: is {_kind(children)}; give a consumer by its queue, e.g. {{"predict": MyConsumer}}')
    return {str(queue).lower(): consumer for queue, consumer in (children or {}).items()}


def check_fields(job_fields: Mapping[str, object]) -> None:
    """Refuse fields of a job that workers write.

    Raises:
        ValueError: names them.
    """
    taken = sorted(OWN_FIELDS.difference(_PRODUCERS).intersection(job_fields))
    if taken:
        raise ValueError(f"field {', '.join(taken)}: is written by workers; leave it out of the job's fields")


def check_bad_inputs(bad_inputs: object) -> None:
    """Refuse what isn't the bytes of files by their names.

    Raises:
        TypeError: says what it is.
    """
    wanted = 'give bytes by the name of each file, e.g. {"empty.tif": b""}'
    if not isinstance(bad_inputs, Mapping):
        raise TypeError(f"bad_inputs: is {_kind(bad_inputs)}; {wanted}")
    for name, content in bad_inputs.items():
        if not (isinstance(name, str) and isinstance(content, bytes)):
            raise TypeError(f"bad_inputs: {name!r} is {_kind(content)}; {wanted}")


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
