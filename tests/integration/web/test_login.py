"""Who may ask: nobody logs in, users have tokens, or a proxy names them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.web.app import build_app
from redis_consumer.web.context import WebContext
from redis_consumer.web.tokens import TokenFile
from support.redis_server import RedisServer
from support.web import make_context

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "cache" / "tokens.json")


@pytest.fixture
def contexts(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[Any]:
    made: list[WebContext] = []

    def make(**options: Any) -> WebContext:
        made.append(make_context(redis_server.port, tmp_path, **options))
        return made[-1]

    yield make
    for context in made:
        context.client.close()


def client(context: WebContext, host: str = "127.0.0.1") -> TestClient:
    return TestClient(build_app(context), base_url="http://localhost", client=(host, 5000))


def owner(tokens: TokenFile, token: str) -> tuple[str, str]:
    found = tokens.find(token)
    assert found is not None
    return found.user, found.role


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_only_digests_are_stored(tokens: TokenFile, tmp_path: Path) -> None:
    token = tokens.new("ada", "user")
    path = tmp_path / "cache" / "tokens.json"
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert owner(tokens, token) == ("ada", "user")
    assert [tokens.find(other) for other in ("", token[:-1], token + "x", "\ud800")] == [None] * 4
    assert tokens.revoke("ada") == 1
    assert tokens.find(token) is None
    assert tokens.revoke("ada") == 0


def test_another_process_sees_a_change(tokens: TokenFile, tmp_path: Path) -> None:
    other = TokenFile(tmp_path / "cache" / "tokens.json")
    first = tokens.new("ada", "user")
    assert owner(other, first) == ("ada", "user")
    second = tokens.new("bo", "operator")
    assert owner(other, second) == ("bo", "operator")
    tokens.revoke("ada")
    assert other.find(first) is None


def test_tokens_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    makers = [threading.Thread(target=TokenFile(path).new, args=(f"user-{i}", "user")) for i in range(12)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(TokenFile(path).all()) == 12


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "a\n", "<b>"])
def test_a_user_has_a_plain_name(tokens: TokenFile, name: str) -> None:
    with pytest.raises(SettingsError, match="letters, digits"):
        tokens.new(name, "user")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"tokens": 7}', '{"tokens": [{"user": "a"}]}', "[" * 100_000,
     '{"tokens": [{"user": "a", "role": "king", "digest": "00", "created": ""}]}'],
    ids=["empty", "list", "cut", "number", "fields", "deep", "role"],
)  # fmt: skip
def test_a_damaged_file_lets_nobody_in(contexts: Any, tokens: TokenFile, tmp_path: Path, content: str) -> None:
    token = tokens.new("ada", "user")
    http = client(contexts(login="token"))
    assert http.get("/api/v1/me", headers=bearer(token)).status_code == 200
    (tmp_path / "cache" / "tokens.json").write_text(content)
    reply = http.get("/api/v1/me", headers=bearer(token))
    assert (reply.status_code, reply.json()["title"]) == (503, "Not available now")
    with pytest.raises(SettingsError, match="WEB_TOKENS: .*tokens.json cannot be read"):
        build_app(contexts(login="token"))


def test_without_a_login_everybody_is_an_operator(contexts: Any) -> None:
    assert client(contexts()).get("/api/v1/me").json()["role"] == "operator"


def test_a_token_lets_a_user_in(contexts: Any, tokens: TokenFile) -> None:
    http, token = client(contexts(login="token")), tokens.new("ada", "user")
    reply = http.get("/api/v1/me")
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["hint"].startswith("Log in with a token")
    assert http.get("/api/v1/me", headers=bearer(token)).json()["name"] == "ada"
    for wrong in ("Bearer x", "Basic " + token, "Bearer", "Bearer " + "x" * 10_000, token):
        assert http.get("/api/v1/me", headers={"Authorization": wrong}).status_code == 401
    # Without a token: probes, the page and the document of the API.
    assert [http.get(path).status_code for path in ("/live", "/", "/api/v1/openapi.json")] == [200] * 3
    for path in ("/api/v1/jobs", "/API/v1/jobs", "/api/v1/jobs/", "/api/v1//jobs", "/api/v1"):
        assert http.get(path).status_code in (401, 404)


def test_the_page_keeps_a_token_in_a_cookie(contexts: Any, tokens: TokenFile) -> None:
    http, token = client(contexts(login="token")), tokens.new("ada", "user")
    refused = http.post("/api/v1/login", json={"token": "wrong"})
    assert (refused.status_code, refused.json()["field"]) == (401, "token")
    reply = http.post("/api/v1/login", json={"token": token})
    assert reply.json()["name"] == "ada"
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert http.get("/api/v1/me").json()["name"] == "ada"
    tokens.revoke("ada")
    assert http.get("/api/v1/me").status_code == 401
    assert http.post("/api/v1/logout").status_code == 204
    assert not http.cookies


@pytest.mark.parametrize("body", ["", "7", "[]", "{}", '{"token": 7}', '{"token": null}', '{"token": "\\ud800"}', "{"])
def test_a_bad_login_is_refused(contexts: Any, tokens: TokenFile, body: str) -> None:
    tokens.new("ada", "user")
    http = client(contexts(login="token"))
    reply = http.post("/api/v1/login", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (401, 422)
    assert reply.headers["content-type"] == "application/problem+json"


def test_users_see_only_their_own_jobs(contexts: Any, tokens: TokenFile, redis_db: Any) -> None:
    http = client(contexts(login="token"))
    ada, bo, boss = (bearer(tokens.new(*row)) for row in (("ada", "user"), ("bo", "user"), ("cy", "operator")))
    redis_db.hset("predict:a.tif:1", mapping={"status": "new", "owner": "ada", "input_file_name": "uploads/a.tif"})
    redis_db.hset("predict:k.tif:1", mapping={"status": "new", "input_file_name": "uploads/k.tif"})
    for job, allowed in (("predict:a.tif:1", (ada, boss)), ("predict:k.tif:1", (boss,))):
        for user in (ada, bo, boss):
            assert http.get(f"/api/v1/jobs/{job}", headers=user).status_code == (200 if user in allowed else 404)
    assert http.get("/api/v1/dead", headers=ada).status_code in (200, 403)
    assert http.get("/api/v1/workers", headers=ada).status_code == 403


def test_a_proxy_names_the_user(contexts: Any) -> None:
    options = {"login": "proxy", "trusted_proxies": ("10.0.0.0/8", "::1"), "operators": frozenset({"cy"})}
    context = contexts(**options)
    named = {"X-Forwarded-User": "ada"}
    assert client(context, "10.1.2.3").get("/api/v1/me", headers=named).json()["role"] == "user"
    assert client(context, "::1").get("/api/v1/me", headers={"X-Forwarded-User": "cy"}).json()["role"] == "operator"
    assert client(context, "::ffff:10.1.2.3").get("/api/v1/me", headers=named).status_code == 200
    twice = [("X-Forwarded-User", "ada"), ("X-Forwarded-User", "cy")]
    refused = [("192.168.0.1", named), ("10.1.2.3", {}), ("10.1.2.3", {"X-Forwarded-User": " "}), ("10.1.2.3", twice)]
    for host, headers in refused:
        assert client(context, host).get("/api/v1/me", headers=headers).status_code == 401


@pytest.mark.parametrize("proxies", [(), ("ten",), ("10.0.0.0/99",)])
def test_proxies_must_be_named(contexts: Any, proxies: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        build_app(contexts(login="proxy", trusted_proxies=proxies))


def test_the_commands_make_list_and_revoke(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "redis_consumer", "tokens", *words, "--file", str(tmp_path / "tokens.json")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    token = run("new", "ada", "--role", "operator").stdout.strip()
    assert owner(TokenFile(tmp_path / "tokens.json"), token) == ("ada", "operator")
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["user"], row["role"]) == ("ada", "operator")
    assert run("revoke", "ada").returncode == 0
    assert run("revoke", "ada").returncode == 1
