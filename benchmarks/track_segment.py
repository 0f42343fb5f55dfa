"""Segments the images of a movie with the shipped model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.processing import registry
from redis_consumer.processing.resize import resize_image, resize_labels
from redis_consumer.serving import open_model_server

Array = npt.NDArray[Any]

MODEL = ModelId("NuclearSegmentation", 1)


def segment(images: Iterable[Array], scale: float) -> Iterator[Array]:
    """Label images of a movie's frames, one by one, as the image consumer makes them.

    Args:
        images: (Y, X); scaled, their sides are multiples of 16.
        scale: factor by which the model sees them resized.
    """
    models = ModelStore()
    card = models.card(MODEL)
    if card is None:
        raise LookupError(f"{MODEL} has no card")
    server = open_model_server("onnx://", find_model=models.find)
    try:
        for image in images:
            batch = image[np.newaxis, ..., np.newaxis].astype(np.float32)
            height, width = (round(side * scale) for side in image.shape)
            scaled = resize_image(batch, (height, width))
            prepared = registry.apply("pre", card.preprocess, scaled, card.functions)
            outputs = server.predict(MODEL, {"image": prepared})
            labels = registry.apply(
                "post", card.postprocess, [outputs[name] for name in sorted(outputs)], card.functions
            )
            yield resize_labels(labels, image.shape)[0, ..., 0]
    finally:
        server.close()
        models.close()
