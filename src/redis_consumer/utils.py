"""The helpers that the documentation calls ``utils``. A doorway: it holds no logic.

Those of gRPC, of tracking and of kinds of images are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_consumer.archives import cd, get_image_files_from_dir, get_tempdir, iter_image_archive, zip_files
from redis_consumer.images import get_image, save_numpy_array
from redis_consumer.processing.resize import pad_image, rescale, reshape_matrix
from redis_consumer.storage.keys import strip_bucket_path
from redis_consumer.text import without_paths

if TYPE_CHECKING:
    from redis_consumer.grpc_clients import grpc_response_to_dict, make_tensor_proto
    from redis_consumer.tracking.track_file import load_track_file

__all__ = [
    "cd",
    "get_image",
    "get_image_files_from_dir",
    "get_tempdir",
    "grpc_response_to_dict",
    "iter_image_archive",
    "load_track_file",
    "make_tensor_proto",
    "pad_image",
    "rescale",
    "reshape_matrix",
    "save_numpy_array",
    "strip_bucket_path",
    "without_paths",
    "zip_files",
]


_OF_LABELS = {"_pick_model": "name_and_version_of_label", "_pick_postprocess": "postprocess_of_label"}


def __getattr__(name: str) -> Any:
    if name in {"grpc_response_to_dict", "make_tensor_proto"}:
        from redis_consumer import grpc_clients

        return getattr(grpc_clients, name)
    if name in _OF_LABELS:
        from redis_consumer.consumers import defaults

        return getattr(defaults, _OF_LABELS[name])
    if name == "load_track_file":
        from redis_consumer.tracking import track_file

        return track_file.load_track_file
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
