"""Functions that process images, predictions and label images. This module only re-exports names."""

from redis_consumer.processing.drift import correct_drift
from redis_consumer.processing.labels import deep_watershed, pixelwise, watershed
from redis_consumer.processing.measure import measure_labels
from redis_consumer.processing.multiplex import mesmer
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
    "mesmer",
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
