"""Decides who may see and change what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from redis_consumer.errors import SettingsError
from redis_consumer.web.problems import Problem
from redis_consumer.web.tokens import OPERATOR


@dataclass(frozen=True)
class User:
    """Who sends a request.

    Attributes:
        name: of the user; empty without login.
        role: ``user`` or ``operator``.
    """

    name: str
    role: str

    @property
    def is_operator(self) -> bool:
        """Whether the user may see and change everything."""
        return self.role == OPERATOR


def user_of(connection: HTTPConnection) -> User:
    """Return the user of a request; without login an operator without a name."""
    user = connection.scope.get("state", {}).get("user")
    return user if isinstance(user, User) else User("", OPERATOR)


def may_see(user: User, fields: Mapping[str, str]) -> bool:
    """Return whether a user may see what has an ``owner``: a job, a batch or an upload."""
    return user.is_operator or (bool(user.name) and fields.get("owner", "") == user.name)


def check_operator(user: User) -> None:
    """Refuse users.

    Raises:
        Problem: 403.
    """
    if not user.is_operator:
        raise Problem(403, "Only operators may do this.", hint="Ask the operator of this server.")


def is_still(connection: HTTPConnection) -> bool:
    """Return whether the user of an open connection may still use it: a token can be revoked meanwhile."""
    find = connection.scope.get("state", {}).get("find_user")
    try:
        return find is None or find(connection) == user_of(connection)
    except SettingsError:
        return False
