"""Checks the host and the origin of each request, and sets the headers that keep a page safe."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redis_consumer.web.context import WebOptions
from redis_consumer.web.problems import Problem, problem_reply

#: Where a probe of a cluster asks by the address of a pod.
PROBES = ("/live", "/ready", "/metrics")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; worker-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RequestCheck:
    """Refuses requests for other hosts and changes by other pages, and adds the headers to each reply.

    A page of another host name that resolves to this machine (DNS rebinding) has its own name in ``Host``.
    """

    def __init__(self, app: ASGIApp, options: WebOptions) -> None:
        self.app = app
        self.options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._note_scheme(scope)
        problem = self._problem(scope)
        app = self.app if problem is None else problem_reply(problem)
        await app(scope, receive, send_with_headers)

    def _note_scheme(self, scope: Scope) -> None:
        """Take the scheme that a trusted proxy names, for links and cookies."""
        scheme = Headers(scope=scope).get("x-forwarded-proto", "")
        if scheme in ("http", "https") and is_within((scope.get("client") or ("",))[0], self.options.trusted_proxies):
            scope["scheme"] = scheme

    def _problem(self, scope: Scope) -> Problem | None:
        headers, hosts = Headers(scope=scope), self.options.hosts
        host = headers.get("host", "")
        if scope["path"] not in PROBES and hosts and host_name(host) not in hosts:
            return Problem(
                421,
                f"This server is not {host_name(host) or 'a server without a name'}.",
                title="Wrong host",
                hint="Open it by one of its own names, or add this name to WEB_HOSTS.",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and scope["method"] not in _SAFE_METHODS
            and _is_of_page(scope["path"])
            and urlsplit(origin).netloc.lower() != host.lower()
            and origin not in self.options.origins
        ):
            return Problem(
                403,
                f"Pages of {origin[:100]} may not change anything here.",
                hint="Open the server's own page, or add the origin to WEB_ORIGINS.",
            )
        return None


def is_within(address: str, networks: Iterable[str]) -> bool:
    """Return whether an address is in one of some networks. What is no address is in none.

    >>> is_within("::ffff:10.0.0.7", ["10.0.0.0/8"]), is_within("localhost", ["127.0.0.1"])
    (True, False)
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in ipaddress.ip_network(network, strict=False) for network in networks)


def _is_of_page(path: str) -> bool:
    """Whether a path is not part of the kiosk's API, which all pages may use."""
    path = path.lower()
    return not path.startswith("/api/") or path == "/api/v1" or path.startswith("/api/v1/")


def host_name(host: str) -> str:
    """Return the name in a ``Host`` header, without the port and in lower case."""
    host = host.lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (not name.count(":") or name.endswith("]")) else host
