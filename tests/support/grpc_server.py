"""A real gRPC server in this process whose methods are functions of bytes, for answers that no sound server gives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

_OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]

Answer = Callable[[bytes, Any], bytes]


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers

    def service(self, handler_call_details: Any) -> Any:
        answer = self._answers.get(handler_call_details.method)
        return None if answer is None else grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def answering(answers: Mapping[str, Answer], *, address: str = "127.0.0.1:0", credentials: Any = None) -> Iterator[str]:
    """Serve functions on loopback; gives ``host:port``.

    Args:
        answers: by the method's path: gets the request's bytes and gRPC's context, gives the reply's bytes.
        address: where to listen; port 0 takes a free one.
        credentials: of gRPC, for TLS.
    """
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[_Methods(answers)], options=_OPTIONS)
        host = address.rpartition(":")[0]
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield f"{host}:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def cutting(target: str, after_bytes: int) -> Iterator[str]:
    """Stand in front of a server and cut each connection off amid its answers; gives ``host:port``.

    Args:
        target: ``host:port`` of the server.
        after_bytes: how much of its answers a connection lets through.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=[listener, target, after_bytes])
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, target: str, after_bytes: int) -> None:
    host, _, port = target.rpartition(":")
    pumps: list[threading.Thread] = []
    ends: list[socket.socket] = []
    while True:
        try:
            near = listener.accept()[0]
        except OSError:
            break
        far = socket.create_connection((host, int(port)))
        for source, sink, limit in ((near, far, None), (far, near, after_bytes)):
            pumps.append(threading.Thread(target=_pump, args=[source, sink, limit]))
            pumps[-1].start()
        ends += [near, far]
    for pump in pumps:
        pump.join()
    for end in ends:
        end.close()


def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    passed = 0
    # The other direction may be cut off.
    with suppress(OSError):
        while content := source.recv(65536):
            passed += len(content)
            if limit is not None and passed > limit:
                break
            sink.sendall(content)
    for end in (source, sink):
        with suppress(OSError):
            # Wakes the other direction, which closing alone doesn't.
            end.shutdown(socket.SHUT_RDWR)
