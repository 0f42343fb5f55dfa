"""A job's ``reason`` says what is wrong, and holds no internals."""

from __future__ import annotations

import pytest

from redis_consumer.errors import ConsumerError, InvalidImage, describe, reason_of
from redis_consumer.images.planes import NotWindowedError

LINK = "https://bucket.example/cells.tif?X-Amz-Signature=abc123&x=1"
ADDRESS = "redis://:hunter2@redis:6379"


@pytest.mark.parametrize("kind", [ConsumerError, ValueError])
def test_links_and_addresses_lose_their_secrets(kind: type[Exception]) -> None:
    last_line = reason_of(kind(f"no reply from {LINK} or {ADDRESS}")).splitlines()[-1]
    assert last_line.startswith(f"{kind.__name__}: no reply from https://bucket.example/cells.tif?X-Amz-Signature=***")
    assert "abc123" not in last_line
    assert "hunter2" not in last_line


def test_classes_of_the_packages_inside_have_the_name_of_their_public_class() -> None:
    assert describe(NotWindowedError("a.tif: it has no tiles")) == "InvalidImage: a.tif: it has no tiles"


def test_an_authors_own_class_keeps_its_name() -> None:
    class NoSpotsError(InvalidImage):
        pass

    assert describe(NoSpotsError("a.tif: no spots")) == "NoSpotsError: a.tif: no spots"
