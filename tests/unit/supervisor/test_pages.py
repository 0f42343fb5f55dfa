"""Are pages served to whoever asks, and nobody kept waiting by the slow?"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.supervisor import pages as pages_module
from redis_consumer.supervisor.pages import Pages, Reply, kept

LARGE = Reply(b"x" * 20_000_000, content_type="text/plain")


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def pages(selector: selectors.BaseSelector) -> Iterator[Pages]:
    small = Reply.of_data({"ready": True}, HTTPStatus.SERVICE_UNAVAILABLE)
    shown = {"/small": lambda: small, "/large": lambda: LARGE, "/broken": lambda: Reply(bytes(1 // 0))}
    served = Pages("127.0.0.1:0", shown, selector, name="--listen ")
    yield served
    served.close()


def turn(selector: selectors.BaseSelector) -> None:
    """One turn of the loop that the pages are part of."""
    for key, _ in selector.select(0.01):
        key.data()


def ask(pages: Pages, path: str, method: str = "GET") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", pages.port))
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


def test_a_page_with_its_status(pages: Pages, selector: selectors.BaseSelector) -> None:
    head, _, body = received(ask(pages, "/small?x=1"), selector).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n")
    assert json.loads(body) == {"ready": True}


@pytest.mark.parametrize(("method", "path"), [("GET", "/other"), ("POST", "/small")])
def test_anything_else_is_told_what_there_is(
    pages: Pages, selector: selectors.BaseSelector, method: str, path: str
) -> None:
    reply = received(ask(pages, path, method), selector)
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert b"GET /small or GET /large" in reply


def test_a_page_that_fails_says_so_and_ends_nothing(
    pages: Pages, selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    assert b"500 Internal Server Error" in received(ask(pages, "/broken"), selector)
    assert "ZeroDivisionError" in caplog.text
    assert received(ask(pages, "/small"), selector).startswith(b"HTTP/1.1 503")


def test_a_large_page_comes_whole(pages: Pages, selector: selectors.BaseSelector) -> None:
    _, _, body = received(ask(pages, "/large"), selector).partition(b"\r\n\r\n")
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

    monkeypatch.setattr("redis_consumer.supervisor.pages.time.monotonic", lambda: now)
    give = kept(page, 1.5)
    assert [told(), told()] == ["102.0", "102.0"]
    now += 1.5
    assert [told(), told()] == ["105.5", "105.5"]
    assert made == [102.0, 105.5]


def test_who_takes_a_large_page_slowly_keeps_nobody_waiting(pages: Pages, selector: selectors.BaseSelector) -> None:
    slow = ask(pages, "/large")
    for _ in range(10):
        turn(selector)
    assert received(ask(pages, "/small"), selector).startswith(b"HTTP/1.1 503")
    slow.close()


@pytest.mark.parametrize("parts", [["GET /sm", "all HTTP/1.1\r\n", "Host: x\r\n\r\n"], ["GET /small HTTP/1.1\r\n"]])
def test_who_asks_slowly_is_answered_all_the_same(
    pages: Pages, selector: selectors.BaseSelector, parts: list[str]
) -> None:
    client = socket.create_connection(("127.0.0.1", pages.port))
    turn(selector)
    for part in parts:
        client.sendall(part.encode())
        turn(selector)
    client.shutdown(socket.SHUT_WR)
    assert received(client, selector).startswith(b"HTTP/1.1 503")


def test_a_request_with_long_headers_is_answered(pages: Pages, selector: selectors.BaseSelector) -> None:
    client = socket.create_connection(("127.0.0.1", pages.port))
    client.sendall(b"GET /small HTTP/1.1\r\nCookie: " + 20_000 * b"x" + b"\r\n\r\n")
    assert received(client, selector).startswith(b"HTTP/1.1 503")


def test_who_never_takes_it_is_hung_up_on(
    pages: Pages, selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "REQUEST_S", 0.0)
    slow = ask(pages, "/large")
    for _ in range(5):
        turn(selector)
    received(ask(pages, "/small"), selector)
    assert len(received(slow, selector)) < len(LARGE.body)


def test_who_leaves_in_the_middle_does_no_harm(pages: Pages, selector: selectors.BaseSelector) -> None:
    ask(pages, "/large").close()
    for _ in range(5):
        turn(selector)
    assert received(ask(pages, "/small"), selector).startswith(b"HTTP/1.1 503")


def test_an_address_that_is_taken(pages: Pages, selector: selectors.BaseSelector) -> None:
    with pytest.raises(SettingsError, match="--listen 127.*can't listen there"):
        Pages(f"127.0.0.1:{pages.port}", {}, selector, name="--listen ")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none(selector: selectors.BaseSelector, address: str) -> None:
    with pytest.raises(SettingsError, match=f"--listen {address}: can't listen there .no HOST:PORT."):
        Pages(address, {}, selector, name="--listen ")
