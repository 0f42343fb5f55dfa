"""Opens the model server that a URL names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from redis_consumer.errors import SettingsError
from redis_consumer.job import ModelId
from redis_consumer.options import METADATA_EXPIRE_S, CallLimits
from redis_consumer.serving.base import (
    ModelIdentity,
    ModelServer,
    ModelSpec,
    TensorSpec,
    check_inputs,
    check_outputs,
    identify,
)
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.transport.connection import ConnectionOptions

__all__ = [
    "ConnectionOptions",
    "ModelIdentity",
    "ModelServer",
    "ModelSpec",
    "TensorSpec",
    "check_inputs",
    "check_outputs",
    "identify",
    "open_model_server",
]

_ALLOWED = (
    "tfs://host:port for TensorFlow Serving, oip://host:port for a server of the Open Inference Protocol "
    "(with TLS: tfss:// and oips://), or onnx:// to run models in this process"
)
_REMOTE = {"tfs": False, "tfss": True, "oip": False, "oips": True}


def open_model_server(
    url: str,
    *,
    find_model: Callable[[ModelId], Path],
    timeout_s: float = CallLimits.timeout_s,
    backoff_s: float = CallLimits.backoff_s,
    max_retries: int = CallLimits.max_retries,
    metadata_expire_s: float = METADATA_EXPIRE_S,
    connection: ConnectionOptions | None = None,
    slots: int = 1,
) -> ModelServer:
    """Make the model server that a URL names; nothing is connected or loaded before its first use.

    Args:
        url: ``tfs://host:port`` or ``oip://host:port``, several addresses divided by commas; ``tfss://`` and
            ``oips://`` for TLS; or ``onnx://``.
        find_model: gives the local path of a model's ``model.onnx``; used by ``onnx://``.
        timeout_s: seconds allowed for one try of a prediction on a server; in proportion more above 16 MiB.
        backoff_s: pause before the first retry in seconds.
        max_retries: how often a call is repeated at most.
        metadata_expire_s: for how many seconds a model's metadata are cached; 0 asks each time.
        connection: how to connect; whether by TLS is for the URL to say.
        slots: processes of this worker that run models at the same time; ``onnx://`` shares CPUs and memory out.

    Raises:
        SettingsError: the URL names no known kind of server, or is incomplete.
    """
    scheme, targets = _parsed(url)
    if scheme == "onnx":
        return OnnxServer(find_model, slots=slots)
    server: Callable[..., ModelServer]
    # Late: each loads protobuf and the messages of its protocol.
    if scheme.startswith("tfs"):
        from redis_consumer.serving.tfs.server import TFServingServer

        server = TFServingServer
    else:
        from redis_consumer.serving.oip.server import OpenInferenceServer

        server = OpenInferenceServer
    return server(
        ",".join(targets),
        timeout_s=timeout_s,
        backoff_s=backoff_s,
        max_retries=max_retries,
        metadata_expire_s=metadata_expire_s,
        connection=replace(connection or ConnectionOptions(), is_encrypted=_REMOTE[scheme]),
    )


def _parsed(url: str) -> tuple[str, list[str]]:
    """Scheme and addresses of a URL; no address for ``onnx``."""
    if "@" in url:
        # Not shown: it can be a password.
        raise SettingsError(f"MODEL_SERVER: holds a name or password before '@'; use {_ALLOWED}")
    scheme, slashes, rest = url.partition("://")
    if slashes and scheme == "onnx":
        if rest.strip("/"):
            raise SettingsError(f"MODEL_SERVER {url!r}: onnx:// takes no address; models are found in the bucket")
        return scheme, []
    if not slashes or scheme not in _REMOTE:
        raise SettingsError(f"MODEL_SERVER {url!r}: unknown kind of model server; use {_ALLOWED}")
    return scheme, [_address(part.strip(), url) for part in rest.rstrip("/").split(",")]


def _address(text: str, url: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        is_address = bool(parts.hostname and parts.port) and parts.netloc == text
    except ValueError:
        is_address = False
    if not is_address:
        raise SettingsError(
            f"MODEL_SERVER {url!r}: {text!r} isn't a host and a port, e.g. tf-serving:8500; put commas between several"
        )
    return text
