"""Finds out who sends a request: there is no login, users have tokens, or a proxy names them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from redis_consumer.errors import SettingsError
from redis_consumer.web.access import User
from redis_consumer.web.context import WebContext, WebOptions
from redis_consumer.web.problems import Problem, problem_reply
from redis_consumer.web.request_check import is_within
from redis_consumer.web.tokens import OPERATOR, USER, TokenFile

#: Name of the cookie with the token of the page.
COOKIE = "redis-consumer-token"
#: Paths of API v1 that need no login.
_OPEN = ("/api/v1/login", "/api/v1/logout", "/api/v1/openapi.json")
_MOST_TOKEN = 200

FindUser = Callable[[HTTPConnection], User | None]


class Login:
    """Lets only known users into API v1, and notes who they are.

    The page itself is open, since it holds no data. Links to results are open too, since they cannot be guessed.

    Args:
        app: what answers the requests.
        find_user: returns the user of a request, or None for an unknown one; see `user_finder`.
        wants_token: whether users have tokens.
    """

    def __init__(self, app: ASGIApp, find_user: FindUser, *, wants_token: bool) -> None:
        self.app = app
        self._find = find_user
        self._wants_token = wants_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or not is_private(scope["path"]):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            user = self._find(connection)
        except SettingsError:
            problem = Problem(503, "The users of this server cannot be read.", hint="Its log says why.")
            await problem_reply(problem)(scope, receive, send)
            return
        if user is None:
            await self._refusal()(scope, receive, send)
            return
        scope.setdefault("state", {}).update(user=user, find_user=self._find)
        await self.app(scope, receive, send)

    def _refusal(self) -> Response:
        if self._wants_token:
            hint = "Log in with a token; the operator of this server makes one by `redis-consumer tokens new NAME`."
            problem = Problem(401, "This server wants a token.", title="Not logged in", hint=hint)
            return problem_reply(problem, {"WWW-Authenticate": "Bearer"})
        hint = "Open it by the address of its proxy; TRUSTED_PROXIES names the proxies that it believes."
        return problem_reply(Problem(401, "No trusted proxy named a user.", title="Not logged in", hint=hint))


def is_private(path: str) -> bool:
    """Return whether a path needs a login."""
    path = path.lower().rstrip("/")
    return (path == "/api/v1" or path.startswith("/api/v1/")) and path not in _OPEN


def user_finder(context: WebContext) -> FindUser:
    """Return what finds the user of a request, as ``WEB_AUTH`` says.

    Raises:
        SettingsError: an address of a trusted proxy, or the file of tokens, is wrong.
    """
    if context.options.login == "token":
        return _by_token(context.tokens)
    if context.options.login == "proxy":
        return _by_proxy(context.options)
    return lambda _: User("", OPERATOR)


def _by_token(tokens: TokenFile) -> FindUser:
    tokens.all()

    def find(connection: HTTPConnection) -> User | None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = connection.cookies.get(COOKIE, "")
        return user_of_token(tokens, token.strip())

    return find


def user_of_token(tokens: TokenFile, token: object) -> User | None:
    """Return the user of a token; None for an unknown one."""
    found = tokens.find(token) if isinstance(token, str) and 0 < len(token) <= _MOST_TOKEN else None
    return User(found.user, found.role) if found else None


def _by_proxy(options: WebOptions) -> FindUser:
    try:
        for text in options.trusted_proxies:
            ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise SettingsError(f"TRUSTED_PROXIES: {error}; give addresses or networks such as 10.0.0.0/8") from error
    if not options.trusted_proxies:
        raise SettingsError("WEB_AUTH=proxy needs TRUSTED_PROXIES, the addresses of the proxies that are believed")

    def find(connection: HTTPConnection) -> User | None:
        name = connection.headers.get(options.user_header, "").strip()
        client = connection.client
        if not name or len(name) > _MOST_TOKEN or client is None or len(_all(connection, options.user_header)) > 1:
            return None
        if not is_within(client.host, options.trusted_proxies):
            return None
        return User(name, OPERATOR if name in options.operators else USER)

    return find


def _all(connection: HTTPConnection, name: str) -> list[str]:
    return Headers(scope=connection.scope).getlist(name)
