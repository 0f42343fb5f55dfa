"""Fixtures of the tests of the web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.redis_server import RedisServer
from support.web import Api, make_context


@pytest.fixture
def api(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[Api]:
    """API v1 on an empty Redis and an empty bucket."""
    api = Api(make_context(redis_server.port, tmp_path))
    yield api
    api.context.client.close()
