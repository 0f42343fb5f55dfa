"""What the stand-ins for model servers share: answers as gRPC methods, refusals, and the life of the process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc


class Refusal(Exception):
    """What the server says instead of an answer."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def method(answer: Callable[[Any], Any], request: type[Any]) -> Any:
    """Make a gRPC method of a function of messages, which may raise `Refusal`."""

    def behave(message: Any, context: Any) -> Any:
        try:
            return answer(message)
        except Refusal as refusal:
            context.abort(refusal.code, str(refusal))

    return grpc.unary_unary_rpc_method_handler(
        behave, request_deserializer=request.FromString, response_serializer=lambda reply: reply.SerializeToString()
    )


def serve(handler: Any, *, port: int = 0, max_message_bytes: int = -1, until_stdin_closes: bool = True) -> None:
    """Listen on loopback, print ``ready PORT``, and answer until the process is ended or its standard input closes."""
    limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8), handlers=[handler], options=[*limits, ("grpc.so_reuseport", 0)]
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    sys.stdout.write(f"ready {port}\n")
    sys.stdout.flush()
    if until_stdin_closes:
        sys.stdin.read()
        server.stop(grace=None)
    server.wait_for_termination()
