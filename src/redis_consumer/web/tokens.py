"""Keeps the tokens with which users log in. Only their SHA-256 digests are stored."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from redis_consumer.errors import SettingsError

#: What a token begins with, so that it can be found where it does not belong.
PREFIX = "rct_"
_NAME = re.compile(r"[\w.@+-]{1,64}")
#: Roles. An operator sees and changes everything.
USER, OPERATOR = "user", "operator"
_ROLES = (USER, OPERATOR)


@dataclass(frozen=True)
class Token:
    """A stored token.

    Attributes:
        user: its owner.
        role: ``user`` or ``operator``.
        digest: SHA-256 of the token, as hexadecimal digits.
        created: ISO 8601.
    """

    user: str
    role: str
    digest: str
    created: str


class TokenFile:
    """A file of tokens. Several processes can use it: a changed file is read again.

    Args:
        path: a JSON file; there need not be one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int, int] | None = None
        self._tokens: list[Token] = []

    def all(self) -> list[Token]:
        """Return all tokens.

        Raises:
            SettingsError: the file cannot be read.
        """
        try:
            state = self._path.stat()
        except FileNotFoundError:
            self._read_at, self._tokens = None, []
            return []
        except OSError as error:
            raise self._unreadable(error) from error
        changed = (state.st_mtime_ns, state.st_size, state.st_ino)
        if changed != self._read_at:
            self._tokens, self._read_at = self._parsed(), changed
        return self._tokens

    def _parsed(self) -> list[Token]:
        try:
            rows = json.loads(self._path.read_text("utf-8"))["tokens"]
            return [_checked(Token(**row)) for row in rows]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> SettingsError:
        return SettingsError(
            f"WEB_TOKENS: {self._path} cannot be read ({type(error).__name__}: {error}); it is written by "
            "`redis-consumer tokens new`"
        )

    def find(self, token: str) -> Token | None:
        """Return what is stored of a token; None for an unknown one. It always takes the same time."""
        digest, found = _digest(token), None
        for known in self.all():
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def new(self, user: str, role: str) -> str:
        """Store a new token and return it. It is shown only this once.

        Raises:
            SettingsError: the name or role is wrong, or the file cannot be written.
        """
        if not _NAME.fullmatch(user):
            raise SettingsError(f"user {user[:70]!r}: has letters, digits and . _ @ + - only, at most 64")
        if role not in _ROLES:
            raise SettingsError(f"role {role[:70]!r}: is {' or '.join(_ROLES)}")
        token = PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._changing() as tokens:
            tokens.append(Token(user, role, _digest(token), now))
        return token

    def revoke(self, user: str) -> int:
        """Remove all tokens of a user and return their number.

        Raises:
            SettingsError: the file cannot be written.
        """
        with self._changing() as tokens:
            before = len(tokens)
            tokens[:] = [token for token in tokens if token.user != user]
            return before - len(tokens)

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """Let a block change the tokens, and write them. Two commands at once wait for each other."""
        import fcntl

        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise SettingsError(f"WEB_TOKENS: {self._path} cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = [*self.all()]
            yield tokens
            self._write({"tokens": [vars(token) for token in tokens]})
        finally:
            os.close(lock)

    def _write(self, content: dict[str, Any]) -> None:
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            with open(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            part.replace(self._path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise SettingsError(f"WEB_TOKENS: {self._path} cannot be written ({error.strerror})") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _checked(token: Token) -> Token:
    if token.role not in _ROLES or not _NAME.fullmatch(token.user) or not re.fullmatch("[0-9a-f]{64}", token.digest):
        raise ValueError(f"a token of {token.user[:70]!r} is damaged")
    return token
