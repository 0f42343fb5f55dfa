"""Connections: several servers, TLS, headers, compression."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from redis_consumer.errors import ModelServerUnavailable, SettingsError
from redis_consumer.job import ModelId
from redis_consumer.options import CallLimits
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.serving.transport.channel import Channel
from redis_consumer.serving.transport.connection import Compression, ConnectionOptions, new_channel
from support.grpc_server import GET_MODEL_METADATA, PREDICT, answering

MODEL = ModelId("Nuclei", 1)
LIMITS = CallLimits(timeout_s=10, backoff_s=0, max_retries=1)


@contextmanager
def channel(*targets: str, options: ConnectionOptions | None = None, limits: CallLimits = LIMITS) -> Iterator[Channel]:
    opened = Channel(targets, "TensorFlow Serving", options=options, limits=limits)
    try:
        yield opened
    finally:
        opened.close()


def echo(request: bytes, _: object) -> bytes:
    return request


@pytest.fixture
def dead_address() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def encrypted_address(authority: trustme.CA) -> Iterator[str]:
    certificate = authority.issue_cert("localhost")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    with answering({PREDICT: echo}, address="localhost:0", credentials=grpc.ssl_server_credentials([pair])) as address:
        yield address


def counted(counts: Counter[str], name: str) -> Callable[[bytes, Any], bytes]:
    def answer(request: bytes, _: object) -> bytes:
        counts[name] += 1
        return request

    return answer


def test_several_servers_share_the_calls() -> None:
    counts: Counter[str] = Counter()
    with ExitStack() as servers:
        targets = [servers.enter_context(answering({PREDICT: counted(counts, name)})) for name in "ab"]
        with channel(*targets) as opened:
            for number in range(10):
                assert opened.call(PREDICT, b"%d" % number, model=MODEL) == b"%d" % number
    assert counts == {"a": 5, "b": 5}


def test_a_dead_server_is_passed_over(dead_address: str) -> None:
    told: list[int] = []
    limits = CallLimits(timeout_s=10, backoff_s=3600, max_retries=1)
    with answering({PREDICT: echo}) as alive, channel(dead_address, alive, limits=limits) as opened:
        for _ in range(5):
            opened.call(PREDICT, b"x", model=MODEL, on_retry=lambda count, _: told.append(count))
    assert told == [1]


def test_all_servers_dead_are_unavailable(dead_address: str) -> None:
    with (
        channel(dead_address, dead_address.replace("127.0.0.1", "127.0.0.2")) as opened,
        pytest.raises(ModelServerUnavailable, match=f"TensorFlow Serving at {dead_address}, 127.0.0.2"),
    ):
        opened.call(PREDICT, b"x", model=MODEL)


def test_all_addresses_of_one_name_are_used() -> None:
    counts: Counter[str] = Counter()
    with ExitStack() as servers:
        first = servers.enter_context(answering({PREDICT: counted(counts, "a")}))
        port = first.rpartition(":")[2]
        second = servers.enter_context(answering({PREDICT: counted(counts, "b")}, address=f"127.0.0.2:{port}"))
        # What a name of two addresses is resolved to.
        with new_channel(f"ipv4:{first},{second}") as opened:
            call = opened.unary_unary(PREDICT)
            while len(counts) < 2 and sum(counts.values()) < 1000:
                call(b"x", timeout=10)
    assert set(counts) == {"a", "b"}


def test_one_living_server_is_a_sign_of_life(dead_address: str) -> None:
    with answering({GET_MODEL_METADATA: echo}) as alive:
        server = TFServingServer(f"{alive},{dead_address}")
        assert server.check() == (f"TensorFlow Serving answers at {alive}, but not at {dead_address} (UNAVAILABLE)")
        server.close()


def test_encrypted_calls_reach_a_server_that_is_vouched_for(
    authority: trustme.CA, encrypted_address: str, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = ConnectionOptions(is_encrypted=True, ca_path=tmp_path / "ca.pem")
    with channel(encrypted_address, options=options) as opened:
        assert opened.call(PREDICT, b"x", model=MODEL) == b"x"


def test_a_server_that_nobody_vouches_for_is_a_matter_of_settings(encrypted_address: str, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = ConnectionOptions(is_encrypted=True, ca_path=tmp_path / "ca.pem")
    with channel(encrypted_address, options=options) as opened, pytest.raises(SettingsError, match="authorities"):
        opened.call(PREDICT, b"x", model=MODEL)


def test_plain_calls_to_an_encrypted_server_are_unavailable(encrypted_address: str) -> None:
    with channel(encrypted_address) as opened, pytest.raises(ModelServerUnavailable):
        opened.call(PREDICT, b"x", model=MODEL)


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    options = ConnectionOptions(is_encrypted=True, ca_path=tmp_path / "none.pem")
    with channel("localhost:1", options=options) as opened, pytest.raises(SettingsError, match=r"none\.pem"):
        opened.call(PREDICT, b"x", model=MODEL)


def test_headers_go_with_each_call_and_are_not_shown() -> None:
    seen: list[Any] = []

    def note(request: bytes, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        return request

    options = ConnectionOptions(headers={"authorization": "Bearer geheim"})
    with answering({PREDICT: note}) as address, channel(address, options=options) as opened:
        opened.call(PREDICT, b"x", model=MODEL)
        opened.probe(PREDICT, b"x", timeout_s=10)
    assert seen == ["Bearer geheim"] * 2
    assert "geheim" not in repr(options)


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_compressed_calls_carry_the_same_bytes(compression: Compression) -> None:
    request = bytes(100_000)
    options = ConnectionOptions(compression=compression)
    with answering({PREDICT: echo}) as address, channel(address, options=options) as opened:
        assert opened.call(PREDICT, request, model=MODEL) == request
