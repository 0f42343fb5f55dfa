"""A Redis without a server, for tests. It runs in this process and supports the scripts of the queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from redis_consumer.errors import SettingsError
from redis_consumer.redis import RedisClient

if TYPE_CHECKING:
    from fakeredis import FakeRedis


class MemoryRedis(RedisClient):
    """A `RedisClient` for a Redis in this process, which is always available and ends with this object.

    Attributes:
        on_command: called after each command; it may run commands itself.

    Raises:
        SettingsError: the extra ``testing`` is not installed.
    """

    def __init__(self) -> None:
        super().__init__("memory", 0)
        self.on_command: Callable[[], None] | None = None
        self._is_telling = False

    @cached_property
    def fake(self) -> FakeRedis:
        """The plain client. `on_command` is not called for its commands."""
        try:
            import fakeredis
            import lupa  # noqa: F401 - it runs the scripts
        except ImportError as error:
            raise SettingsError(
                "redis_consumer.testing: fakeredis or lupa is missing; "
                "install them by: pip install 'kiosk-redis-consumer[testing]'"
            ) from error
        # Without an explicit server, the data would stay until the process ends.
        server = fakeredis.FakeServer()
        return fakeredis.FakeRedis(server=server, decode_responses=True, encoding_errors="surrogateescape")

    @property
    def _redis_master(self) -> FakeRedis:
        return self.fake

    def batch(self, *commands: Sequence[Any]) -> list[Any]:
        """Run commands in order and return their replies, see `RedisClient.batch`."""
        return [self._retried("batch", partial(self._reply_to, command)) for command in commands]

    def close(self) -> None:
        """Do nothing: there is no connection, and the data stays with this object."""

    def _reply_to(self, command: Sequence[Any], fake: Any) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return fake.execute_command(*command)
        except NoScriptError as error:
            return error

    def _retried(self, name: str, send: Callable[[Any], Any], command: Hashable = None) -> Any:
        reply = super()._retried(name, send, command)
        if self.on_command is not None and not self._is_telling:
            self._is_telling = True
            try:
                self.on_command()
            finally:
                self._is_telling = False
        return reply
