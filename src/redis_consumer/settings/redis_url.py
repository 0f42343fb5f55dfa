"""Reads the parts of ``REDIS_URL``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

DEFAULT_PORT = 6379


@dataclass(frozen=True)
class RedisUrl:
    """The parts of a URL of Redis.

    Attributes:
        host: name or address; for a socket its path, which begins with ``/``.
        port: its port.
        db: number of the database.
        username: empty for none.
        password: empty for none.
        is_encrypted: whether TLS is used.
    """

    host: str
    port: int = DEFAULT_PORT
    db: int = 0
    username: str = ""
    password: str = ""
    is_encrypted: bool = False

    @property
    def values(self) -> dict[str, object]:
        """The settings that it stands for, by name; without user and password where it has none."""
        found: dict[str, object] = {"REDIS_HOST": self.host, "REDIS_PORT": self.port}
        if self.username:
            found["REDIS_USERNAME"] = self.username
        return {**found, "REDIS_PASSWORD": self.password} if self.password else found


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL.

    >>> parse_redis_url("rediss://jobs:secret@[::1]:6380/2")
    RedisUrl(host='::1', port=6380, db=2, username='jobs', password='secret', is_encrypted=True)

    >>> parse_redis_url("unix:///run/redis.sock?db=1").host
    '/run/redis.sock'

    Raises:
        ValueError: it isn't a URL of Redis, or has parts that aren't supported.
    """
    parts = urlsplit(text)
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.fragment:
        raise ValueError("a fragment")
    if parts.scheme == "unix":
        return RedisUrl(unquote(parts.path), DEFAULT_PORT, _socket_db(parts), username, password)
    path = re.fullmatch(r"/?([0-9]{0,4})", parts.path)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not path or parts.query:
        raise ValueError("no URL of Redis")
    port = DEFAULT_PORT if parts.port is None else parts.port
    if not port:
        raise ValueError("no port")
    return RedisUrl(unquote(parts.hostname), port, int(path[1] or 0), username, password, parts.scheme == "rediss")


def _socket_db(parts: SplitResult) -> int:
    """Number of the database in the URL of a socket."""
    found = re.fullmatch(r"(?:db=([0-9]{1,4}))?", parts.query)
    if parts.hostname or not parts.path.startswith("/") or not found:
        raise ValueError("no path of a socket")
    return int(found[1] or 0)


def redis_values(given: object) -> dict[str, object]:
    """Return the settings that a value of ``REDIS_URL`` sets; none if it is missing or wrong."""
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    try:
        return parse_redis_url(text).values if isinstance(text, str) else {}
    except ValueError:
        return {}
