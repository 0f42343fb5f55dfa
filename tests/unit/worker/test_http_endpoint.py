"""Every client gets its page, and slow clients delay no other."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.worker import http_endpoint
from redis_consumer.worker.http_endpoint import HttpEndpoint, Reply, kept

LARGE = Reply(b"x" * 20_000_000, content_type="text/plain")


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def endpoint(selector: selectors.BaseSelector) -> Iterator[HttpEndpoint]:
    small = Reply.of_data({"ready": True}, HTTPStatus.SERVICE_UNAVAILABLE)
    shown = {"/small": lambda: small, "/large": lambda: LARGE, "/broken": lambda: Reply(bytes(1 // 0))}
    served = HttpEndpoint("127.0.0.1:0", shown, selector, name="--listen ")
    yield served
    served.close()


def turn(selector: selectors.BaseSelector) -> None:
    """One turn of the loop that the pages are part of."""
    for key, _ in selector.select(0.01):
        key.data()


def ask(endpoint: HttpEndpoint, path: str, method: str = "GET") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def received(client: socket.socket, selector: selectors.BaseSelector) -> bytes:
    """All that comes until the other side hangs up."""
    client.setblocking(False)
    got = b""
    with client:
        while True:
            turn(selector)
            try:
                part = client.recv(1 << 20)
            except BlockingIOError:
                continue
            if not part:
                return got
            got += part


def test_a_page_with_its_status(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    head, _, body = received(ask(endpoint, "/small?x=1"), selector).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n")
    assert json.loads(body) == {"ready": True}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/other", 404),
        ("HEAD", "/other", 404),
        ("POST", "/other", 404),
        ("OPTIONS", "*", 404),
        ("POST", "/small", 405),
        ("DELETE", "/small", 405),
        ("get", "/small", 405),
    ],
)
def test_anything_else_is_told_what_there_is(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, method: str, path: str, status: int
) -> None:
    head, _, body = received(ask(endpoint, path, method), selector).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"GET /small or GET /large" in body) == (method != "HEAD")
    assert (b"\r\nAllow: GET, HEAD\r\n" in head) == (status == 405)


def test_head_is_the_head_of_get(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    got = received(ask(endpoint, "/small"), selector)
    head, _, body = got.partition(b"\r\n\r\n")
    assert received(ask(endpoint, "/small", "HEAD"), selector) == head + b"\r\n\r\n"
    assert f"Content-Length: {len(body)}".encode() in head
    assert received(ask(endpoint, "/broken", "HEAD"), selector).startswith(b"HTTP/1.1 500 ")


MALFORMED = {
    b"\r\n\r\nGET /small HTTP/1.1\r\n\r\n": 503,
    b"GET /small HTTP/1.1\r\n\r\n": 503,  # without Host
    b"GET /small HTTP/1.0\n\n": 503,
    b"GET http://pod:8080/small?x HTTP/1.1\r\nHost: pod\r\n\r\n": 503,
    b"GET /small HTTP/1.1\r\nHost: \xff\x00: \r\n x\r\n\r\n": 503,
    b"GET /small HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\n\r\n": 503,
    b"POST /small HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000: 405,
    b"GET /small\r\n\r\n": 400,
    b"GET\r\n\r\n": 400,
    b"GET  /small HTTP/1.1\r\n\r\n": 400,
    b"GET /small HTTP/1.1 x\r\n\r\n": 400,
    b"GET /small HTTQ/1.1\r\n\r\n": 400,
    b"(GET) /small HTTP/1.1\r\n\r\n": 400,
    b"GET /sm\xe4ll HTTP/1.1\r\n\r\n": 400,
    b"GET /\x00 HTTP/1.1\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,  # TLS: who sends it waits for an answer
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
    b"GET /small HTTP/1.1\r\nCookie: " + b"x" * 3_000_000 + b"\r\n\r\n": 431,
    b"G" * 100_000: 431,
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n": 431,
}


@pytest.mark.parametrize(("asked", "status"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_each_request_is_answered_whatever_is_wrong_with_it(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, asked: bytes, status: int
) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.setblocking(False)
    while asked:
        turn(selector)
        with contextlib.suppress(BlockingIOError):
            asked = asked[client.send(asked) :]
    reply = received(client, selector)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert reply.count(b"HTTP/1.1 ") == 1
    assert received(ask(endpoint, "/small"), selector).startswith(b"HTTP/1.1 503")


def test_who_sends_without_end_is_hung_up_on(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.setblocking(False)
    with client, pytest.raises(OSError, match="reset|Broken pipe"):
        send_without_end(client, selector)


def send_without_end(client: socket.socket, selector: selectors.BaseSelector) -> None:
    for _ in range(5000):
        turn(selector)
        with contextlib.suppress(BlockingIOError):
            client.send(b"x" * 100_000)


def test_who_sends_byte_by_byte_for_too_long_is_told(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    for byte in b"GET /small":
        client.sendall(bytes([byte]))
        turn(selector)
    assert received(ask(endpoint, "/small"), selector).startswith(b"HTTP/1.1 503")
    monkeypatch.setattr(http_endpoint, "REQUEST_S", 0.0)
    client.sendall(b"x")
    assert received(client, selector).startswith(b"HTTP/1.1 408 ")


def test_who_asks_nothing_gets_nothing(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.shutdown(socket.SHUT_WR)
    assert received(client, selector) == b""


def test_a_page_that_fails_says_so_and_ends_nothing(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    assert b"500 Internal Server Error" in received(ask(endpoint, "/broken"), selector)
    assert "ZeroDivisionError" in caplog.text
    assert received(ask(endpoint, "/small"), selector).startswith(b"HTTP/1.1 503")


def test_a_large_page_comes_whole(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    _, _, body = received(ask(endpoint, "/large"), selector).partition(b"\r\n\r\n")
    assert body == LARGE.body


@pytest.mark.parametrize("fails", [False, True])
def test_a_kept_page_is_made_anew_some_seconds_after_it_came(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    now = 100.0
    made: list[float] = []

    def page() -> Reply:
        nonlocal now
        now += 2
        made.append(now)
        if fails:
            raise SettingsError(f"{now}")
        return Reply(f"{now}".encode())

    def told() -> str:
        try:
            return give().body.decode()
        except SettingsError as error:
            return str(error)

    monkeypatch.setattr("redis_consumer.worker.http_endpoint.time.monotonic", lambda: now)
    give = kept(page, 1.5)
    assert [told(), told()] == ["102.0", "102.0"]
    now += 1.5
    assert [told(), told()] == ["105.5", "105.5"]
    assert made == [102.0, 105.5]


def test_who_takes_a_large_page_slowly_keeps_nobody_waiting(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector
) -> None:
    slow = ask(endpoint, "/large")
    for _ in range(10):
        turn(selector)
    assert received(ask(endpoint, "/small"), selector).startswith(b"HTTP/1.1 503")
    slow.close()


@pytest.mark.parametrize("parts", [["GET /sm", "all HTTP/1.1\r\n", "Host: x\r\n\r\n"], ["GET /small HTTP/1.1\r\n"]])
def test_who_asks_slowly_is_answered_all_the_same(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, parts: list[str]
) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    turn(selector)
    for part in parts:
        client.sendall(part.encode())
        turn(selector)
    client.shutdown(socket.SHUT_WR)
    assert received(client, selector).startswith(b"HTTP/1.1 503")


def test_a_request_with_long_headers_is_answered(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.sendall(b"GET /small HTTP/1.1\r\nCookie: " + 20_000 * b"x" + b"\r\n\r\n")
    assert received(client, selector).startswith(b"HTTP/1.1 503")


def test_who_never_takes_it_is_hung_up_on(
    endpoint: HttpEndpoint, selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_endpoint, "REQUEST_S", 0.0)
    slow = ask(endpoint, "/large")
    for _ in range(5):
        turn(selector)
    received(ask(endpoint, "/small"), selector)
    assert len(received(slow, selector)) < len(LARGE.body)


def test_who_leaves_in_the_middle_does_no_harm(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    ask(endpoint, "/large").close()
    for _ in range(5):
        turn(selector)
    assert received(ask(endpoint, "/small"), selector).startswith(b"HTTP/1.1 503")


def test_an_address_that_is_taken(endpoint: HttpEndpoint, selector: selectors.BaseSelector) -> None:
    with pytest.raises(SettingsError, match="--listen 127.*can't listen there"):
        HttpEndpoint(f"127.0.0.1:{endpoint.port}", {}, selector, name="--listen ")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:\uff18\uff10", "127.0.0.1:8_0"]
)
def test_an_address_that_is_none(selector: selectors.BaseSelector, address: str) -> None:
    with pytest.raises(SettingsError, match=f"--listen {address}: can't listen there .no HOST:PORT."):
        HttpEndpoint(address, {}, selector, name="--listen ")
