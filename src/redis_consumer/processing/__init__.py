"""Functions that process images, predictions and label images. Each is loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.processing.drift import correct_drift
    from redis_consumer.processing.labels import deep_watershed, pixelwise, watershed
    from redis_consumer.processing.measure import measure_labels
    from redis_consumer.processing.normalization import (
        histogram_normalization,
        normalize,
        percentile_normalize,
        percentile_threshold,
    )
    from redis_consumer.processing.normalization import histogram_normalization as phase_preprocess
    from redis_consumer.processing.resize import pad_image, rescale, reshape_matrix, resize_image, resize_labels

__all__ = [
    "correct_drift",
    "deep_watershed",
    "histogram_normalization",
    "measure_labels",
    "normalize",
    "pad_image",
    "percentile_normalize",
    "percentile_threshold",
    "phase_preprocess",
    "pixelwise",
    "rescale",
    "reshape_matrix",
    "resize_image",
    "resize_labels",
    "watershed",
]

_MODULES = {
    "drift": ("correct_drift",),
    "labels": ("deep_watershed", "pixelwise", "watershed"),
    "measure": ("measure_labels",),
    "normalization": ("histogram_normalization", "normalize", "percentile_normalize", "percentile_threshold"),
    "resize": ("pad_image", "rescale", "reshape_matrix", "resize_image", "resize_labels"),
}
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names}
_PLACES["phase_preprocess"] = ("normalization", "histogram_normalization")


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
