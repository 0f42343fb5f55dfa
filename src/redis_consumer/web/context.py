"""Holds what all routes of the web server share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from redis_consumer.machine import local_disk
from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings, revealed
from redis_consumer.storage import Storage
from redis_consumer.web.tokens import TokenFile

#: Seconds for which a request waits for an unavailable Redis.
REDIS_WAITS_S = 2.0


@dataclass(frozen=True)
class WebOptions:
    """Addresses, login and limits of the server.

    Attributes:
        public_url: address for links; empty for the host of each request.
        job_types: queues for which the kiosk's API takes jobs.
        model_prefix: folder of the models in the bucket, without slashes around it.
        upload_prefix: folder of uploads in the bucket, the same.
        login: ``none``, ``token`` or ``proxy``.
        kiosk_api: whether the kiosk's API is served.
        hosts: host names that requests may have; none for any.
        origins: origins of other pages that may call API v1.
        waiting_jobs: waiting jobs that a user may have; 0 for any number.
        user_bytes: bytes that a user may upload within a day; 0 for any number.
        upload_bytes: largest size of an upload; 0 for any size.
        history_s: seconds for which the history of a user is kept after the last job.
        cache_bytes: size of all views of images and results on disk.
        decoder_bytes: memory of a process that reads an image.
        decoder_s: seconds that such a process may run.
        link_s: seconds for which a link to a result works.
        secret: signs the links; empty for one that is kept in the folder.
        trusted_proxies: addresses and networks of proxies that are believed.
        user_header: header in which they name the user.
        operators: users of a proxy who are operators.
    """

    public_url: str = ""
    job_types: tuple[str, ...] = ("predict", "track")
    model_prefix: str = "models"
    upload_prefix: str = "uploads"
    login: str = "none"
    kiosk_api: bool = True
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    waiting_jobs: int = 0
    user_bytes: int = 0
    upload_bytes: int = 0
    history_s: int = 30 * 24 * 3600
    cache_bytes: int = 20 * 10**9
    decoder_bytes: int = 2 * 10**9
    decoder_s: float = 600.0
    link_s: float = 7 * 24 * 3600.0
    secret: str = field(default="", repr=False)
    trusted_proxies: tuple[str, ...] = ()
    user_header: str = "X-Forwarded-User"
    operators: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings, *, is_loopback: bool = True) -> WebOptions:
        """Take the options from the settings.

        Args:
            settings: of this process.
            is_loopback: whether only this machine can reach the server.
        """
        hosts = names(settings.web_hosts.lower())
        if not hosts and (is_loopback or settings.web_auth == "none"):
            own = urlsplit(settings.public_url).hostname
            hosts = ["localhost", "127.0.0.1", "[::1]", *([own] if own else [])]
        return cls(
            public_url=settings.public_url.rstrip("/"),
            job_types=tuple(names(settings.job_types)),
            model_prefix=settings.model_prefix.strip("/"),
            upload_prefix=settings.upload_prefix.strip("/"),
            login=settings.web_auth,
            kiosk_api=settings.web_kiosk_api == "on"
            or (settings.web_kiosk_api == "auto" and settings.web_auth == "none"),
            hosts=frozenset(hosts),
            origins=frozenset(names(settings.web_origins)),
            waiting_jobs=settings.web_max_waiting,
            user_bytes=settings.web_max_user_bytes,
            upload_bytes=settings.web_max_upload_bytes,
            cache_bytes=settings.web_cache_mb * 10**6,
            decoder_bytes=settings.web_decoder_mb * 10**6,
            decoder_s=settings.web_decoder_timeout,
            link_s=settings.web_link_expire_s,
            secret=revealed(settings.web_secret) or "",
            trusted_proxies=tuple(names(settings.trusted_proxies)),
            user_header=settings.web_user_header,
            operators=frozenset(names(settings.web_operators)),
        )


class WebRedis(RedisClient):
    """A client that many short-lived threads share: none of them keeps a connection."""

    def batch(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together, see `RedisClient.batch`."""
        try:
            return super().batch(*commands)
        finally:
            self.end_thread()


@dataclass
class WebContext:
    """What all routes share.

    Attributes:
        settings: of this process.
        options: of the server.
        client: a client of Redis. It blocks, so it is used in threads only.
        storage: the bucket; the same.
        folder: for caches and half-sent uploads.
        cache: values that modules keep between requests, by name.
    """

    settings: Settings
    options: WebOptions
    client: WebRedis
    storage: Storage
    folder: Path
    cache: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, *, is_loopback: bool = True) -> WebContext:
        """Open Redis and the bucket of the settings, without connecting yet, and make the folder.

        Raises:
            SettingsError: a setting is wrong, or the folder can't be made.
        """
        folder = server_folder(settings)
        with local_disk(str(folder), is_ours=True):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        client = WebRedis(settings.redis_host, settings.redis_port, settings.redis_timeout, deadline_s=REDIS_WAITS_S)
        options = WebOptions.of(settings, is_loopback=is_loopback)
        return cls(settings, options, client, Storage(settings.storage_bucket), folder)

    @cached_property
    def tokens(self) -> TokenFile:
        """The tokens with which users log in."""
        return TokenFile(token_path(self.settings, self.folder))

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def server_folder(settings: Settings) -> Path:
    """Return the folder in which the server keeps its files."""
    return Path(settings.web_folder or Path.home() / ".cache" / "redis-consumer-web").absolute()


def token_path(settings: Settings, folder: Path) -> Path:
    """Return the file of the tokens of a server, whose folder is given."""
    return Path(settings.web_tokens or folder / "tokens.json")


def context_of(connection: HTTPConnection) -> WebContext:
    """Return the context of the application that got a request."""
    context: WebContext = connection.app.state.context
    return context


def names(text: str) -> list[str]:
    """Split a setting that is a list joined by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
