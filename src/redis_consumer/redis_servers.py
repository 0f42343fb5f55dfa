"""Finds the Redis server that takes commands: at an address, or by Sentinel. Redis Cluster is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redis import exceptions

from redis_consumer.errors import SettingsError
from redis_consumer.redis_faults import WrongServer


@dataclass(frozen=True)
class Access:
    """User, password and TLS of a server; the same for a Sentinel and its servers.

    Args:
        username: ACL user, empty for the default one.
        password: of the user, empty for none.
        db: number of the database.
        is_encrypted: whether to use TLS.
        ca_path: file of the authority that signed the server's certificate, None for those that the system trusts.
        cert_path: file of our own certificate, None for none.
        key_path: file of its key; None if it is in the same file.
        master_name: name of the master at the Sentinel; can be empty if there is only one.

    Raises:
        SettingsError: a file is missing.
    """

    username: str = ""
    password: str = ""
    db: int = 0
    is_encrypted: bool = False
    ca_path: Path | None = None
    cert_path: Path | None = None
    key_path: Path | None = None
    master_name: str = ""

    def __post_init__(self) -> None:
        files = {"REDIS_CA": self.ca_path, "REDIS_CLIENT_CERT": self.cert_path, "REDIS_CLIENT_KEY": self.key_path}
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise SettingsError(f"{name} = {str(path)!r}: there is no such file; give the path of a PEM file")

    @property
    def is_given(self) -> bool:
        """Whether there is a user or a password."""
        return bool(self.username or self.password)

    def anonymous(self) -> Access:
        """The same without user and password."""
        return replace(self, username="", password="")

    def options(self) -> dict[str, Any]:
        """Return the values that are set as arguments of redis-py, except the password."""
        found: dict[str, Any] = {"username": self.username} if self.username else {}
        if self.db:
            found["db"] = self.db
        if not self.is_encrypted:
            return found
        files = {"ssl_ca_certs": self.ca_path, "ssl_certfile": self.cert_path, "ssl_keyfile": self.key_path}
        return {**found, "ssl": True, **{name: str(path) for name, path in files.items() if path is not None}}


def usual_access(host: str, port: int) -> Access:
    """Return the access of the settings if the address is theirs. Any other address gets none, so that it can't learn
    the password.

    Raises:
        SettingsError: a setting is wrong, a file is missing, or a file is set without TLS.
    """
    from redis_consumer import settings  # imported late, because it takes most of the import time of this package
    from redis_consumer.settings.redis_url import parse_redis_url

    with settings.glanced_at():
        now = settings.current()
    if (host, port) != (now.redis_host, now.redis_port):
        return Access()
    url = parse_redis_url(settings.revealed(now.redis_url) or "redis://localhost")
    files = [Path(path) if path else None for path in (now.redis_ca, now.redis_client_cert, now.redis_client_key)]
    if any(files) and not url.is_encrypted:
        raise SettingsError("REDIS_CA, REDIS_CLIENT_CERT: set without TLS; give REDIS_URL as rediss://host:port")
    ca_path, cert_path, key_path = files
    return Access(
        username=now.redis_username,
        password=settings.revealed(now.redis_password) or "",
        db=url.db,
        is_encrypted=url.is_encrypted,
        ca_path=ca_path,
        cert_path=cert_path,
        key_path=key_path,
        master_name=now.redis_master_name,
    )


def is_sentinel(client: Any) -> bool:
    """Return whether a plain client is connected to a Sentinel.

    Raises:
        WrongServer: it is connected to a Redis Cluster.
    """
    try:
        mode = client.execute_command("HELLO", "3")["mode"]
    except exceptions.AuthenticationError:
        raise
    except (exceptions.ResponseError, KeyError, TypeError):
        return False  # a proxy or another server that is not a Sentinel
    if mode == "cluster":
        raise WrongServer("it is a Redis Cluster, which is not supported; use a single master, or a Sentinel")
    return bool(mode == "sentinel")


def master_of(sentinel: Any, name: str) -> tuple[str, int]:
    """Ask a Sentinel for host and port of the named master, or of the only one.

    Raises:
        WrongServer: it has no such master, or several.
    """
    masters = sentinel.sentinel_masters()
    found = dict(masters) if isinstance(masters, dict) else {each["name"]: each for each in masters}
    known = ", ".join(sorted(found)) or "none"
    if name and name not in found:
        raise WrongServer(
            f"the Sentinel doesn't know the master {name!r}, only {known}; set REDIS_MASTER_NAME to one of them"
        )
    if not found:
        raise exceptions.ConnectionError("the Sentinel has no master")
    if len(found) > 1 and not name:
        raise WrongServer(f"the Sentinel knows several masters: {known}; set REDIS_MASTER_NAME to one of them")
    master = found[name] if name else next(iter(found.values()))
    return str(master["ip"]), int(master["port"])


def refused_commands(client: Any, commands: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """List the commands that the user of a plain client has no right to run.

    They are put into a transaction that is dropped, so that none is run. Redis checks the rights when a command is
    added.
    """
    asked = [["MULTI"], *commands, ["DISCARD"]]
    connection = client.connection_pool.get_connection()
    try:
        replies: list[Any] = []
        for command in asked:
            connection.send_command(*command)
            try:
                replies.append(connection.read_response())
            except exceptions.ResponseError as error:
                replies.append(error)
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)
    return [each for each, reply in zip(asked, replies, strict=True) if isinstance(reply, exceptions.NoPermissionError)]
