"""Reads images from files, and writes arrays to files. This module only re-exports names."""

from redis_consumer.images.image import Image, batch_shape, check_frames, check_indices, select_channels, to_batch
from redis_consumer.images.reading import get_image, open_image, read_as_stored, read_image, read_planes
from redis_consumer.images.writing import StackFiles, save_numpy_array, split_frames, write_channels
from redis_consumer.options import ImageLimits

__all__ = [
    "Image",
    "ImageLimits",
    "StackFiles",
    "batch_shape",
    "check_frames",
    "check_indices",
    "get_image",
    "open_image",
    "read_as_stored",
    "read_image",
    "read_planes",
    "save_numpy_array",
    "select_channels",
    "split_frames",
    "to_batch",
    "write_channels",
]
