"""Functions that process images, predictions and label images. This module only re-exports names."""

from redis_consumer.processing.boxes import retinanet_semantic_to_label_image, retinanet_to_label_image
from redis_consumer.processing.drift import correct_drift
from redis_consumer.processing.labels import deep_watershed, pixelwise, watershed
from redis_consumer.processing.measure import measure_labels
from redis_consumer.processing.multiplex import deep_watershed_mibi, mesmer, mibi
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
    "deep_watershed_mibi",
    "histogram_normalization",
    "measure_labels",
    "mesmer",
    "mibi",
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
    "retinanet_semantic_to_label_image",
    "retinanet_to_label_image",
    "watershed",
]
