"""Where do pixels become predictions?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from redis_consumer.errors import SettingsError
from redis_consumer.job import ModelId
from redis_consumer.serving.base import ModelServer, ModelSpec, TensorSpec, check_inputs

__all__ = ["ModelServer", "ModelSpec", "TensorSpec", "check_inputs", "open_model_server"]

_ALLOWED = "tfs://host:port for TensorFlow Serving, or onnx:// to run models in this process"


def open_model_server(
    url: str,
    *,
    find_model: Callable[[ModelId], Path],
    timeout_s: float = 30,
    backoff_s: float = 3,
    max_retries: int = 5,
    metadata_expire_s: float = 30,
) -> ModelServer:
    """Make the model server that a URL names; nothing is connected or loaded before its first use.

    Args:
        url: ``tfs://host:port`` or ``onnx://``.
        find_model: gives the local path of a model's ``model.onnx``; used by ``onnx://``.
        timeout_s: seconds allowed for one try of a prediction on a server.
        backoff_s: pause before the first retry in seconds.
        max_retries: how often a call is repeated at most.
        metadata_expire_s: for how many seconds a server's word on a model is believed; 0 asks each time.

    Raises:
        SettingsError: the URL names no kind of server that is known, or not fully.
    """
    parts = _split(url)
    if parts.scheme == "tfs":
        from redis_consumer.serving.tf_serving import TFServingServer

        return TFServingServer(
            _address(parts),
            timeout_s=timeout_s,
            backoff_s=backoff_s,
            max_retries=max_retries,
            metadata_expire_s=metadata_expire_s,
        )
    if parts.scheme == "onnx":
        if parts.netloc or parts.path.strip("/"):
            raise SettingsError(f"MODEL_SERVER {url!r}: onnx:// takes no address; models are found in the bucket")
        from redis_consumer.serving.onnx import OnnxServer

        return OnnxServer(find_model)
    if parts.scheme == "oip":
        raise SettingsError(f"MODEL_SERVER {url!r}: Open Inference servers aren't supported yet; use {_ALLOWED}")
    raise SettingsError(f"MODEL_SERVER {url!r}: no known kind of model server; use {_ALLOWED}")


def _split(url: str) -> SplitResult:
    if "@" in url:
        # Not shown: what stands there may be a password.
        raise SettingsError(f"MODEL_SERVER: holds a name or password before '@'; use {_ALLOWED}")
    try:
        parts = urlsplit(url)
        # Reading the port is what checks it.
        if parts.port == 0:
            raise ValueError("port 0 is no port")
    except ValueError as error:
        raise SettingsError(f"MODEL_SERVER {url!r}: {error}; use {_ALLOWED}") from error
    return parts


def _address(parts: SplitResult) -> str:
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if not parts.hostname or not parts.port or extra:
        raise SettingsError(
            f"MODEL_SERVER {parts.geturl()!r}: wants a host and a port, nothing else, e.g. tfs://tf-serving:8500"
        )
    return parts.netloc
