"""Makes one gRPC connection."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redis_consumer.errors import SettingsError
from redis_consumer.serving.transport.protobuf import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    import grpc

Compression = Literal["none", "gzip", "deflate"]

# What gRPC accepts. Names that end in -bin hold bytes, which settings can't give; grpc- is reserved by gRPC.
_NAME = re.compile(r"(?!grpc-)[A-Za-z0-9_.-]+(?<!-bin)")
_VALUE = re.compile(r"[ -~]*")

_MAX_RECONNECT_BACKOFF_MS = 3000
_ROUND_ROBIN = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


@dataclass(frozen=True)
class ConnectionOptions:
    """Options of every connection to a model server.

    Attributes:
        is_encrypted: whether TLS is spoken.
        ca_path: PEM file of the authorities that signed the server's certificate; None for the system's.
        headers: sent with each call, e.g. a token; names in lower case.
        compression: of requests, and asked of replies. Pixels hardly shrink, and on a fast network gzip takes 20 times
            as long as it saves.
        max_message_bytes: largest request and reply; by default what protobuf allows, where gRPC would stop at 4 MiB.
    """

    is_encrypted: bool = False
    ca_path: Path | None = None
    # Not shown: it can be a secret.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    compression: Compression = "none"
    max_message_bytes: int = MAX_MESSAGE_BYTES


def parse_headers(text: str) -> dict[str, str]:
    """Read headers as settings give them: ``name=value``, several divided by commas.

    >>> parse_headers("authorization=Bearer abc, x-team=cells")
    {'authorization': 'Bearer abc', 'x-team': 'cells'}

    Raises:
        SettingsError: a part isn't a header; it isn't shown, as it can be a secret.
    """
    headers = {}
    for number, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        name, sign, value = part.partition("=")
        if not sign or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise SettingsError(f"headers of the model server: part {number} is no header; give name=value,name=value")
        headers[name.lower()] = value
    return headers


def new_channel(target: str, options: ConnectionOptions | None = None) -> grpc.Channel:
    """Make a channel; it connects at its first call.

    Args:
        target: ``host:port``. Where the host has several addresses, as a headless service of Kubernetes has, calls go
            to them in turn, past those that don't answer.
        options: how to connect; without encryption by default.

    Raises:
        SettingsError: the file of authorities can't be read.
    """
    import grpc

    wanted = options or ConnectionOptions()
    common: dict[str, Any] = {"options": _arguments(wanted), "compression": _compression(wanted)}
    if not wanted.is_encrypted:
        return grpc.insecure_channel(target, **common)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(_authorities(wanted.ca_path)), **common)


def _arguments(options: ConnectionOptions) -> list[tuple[str, str | int]]:
    return [
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        # Finds a dead peer while a call waits. Not on idle connections: servers cut off clients that ping those.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # By default gRPC ends up trying to connect every 2 minutes only, and our retries would meet no connection.
        ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_BACKOFF_MS),
        ("grpc.service_config", _ROUND_ROBIN),
    ]


def _compression(options: ConnectionOptions) -> grpc.Compression:
    import grpc

    return {
        "none": grpc.Compression.NoCompression,
        "gzip": grpc.Compression.Gzip,
        "deflate": grpc.Compression.Deflate,
    }[options.compression]


def _authorities(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"authorities of the model server {path}: can't be read: {error.strerror}; name a PEM file"
        ) from error
