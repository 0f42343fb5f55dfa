"""A class that no worker can run is refused, and the message says why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import pytest

from redis_consumer.consumers import Consumer, ImageFileConsumer
from redis_consumer.consumers.registry import check_class
from redis_consumer.errors import SettingsError


class Good(Consumer):
    def _consume(self, redis_hash: str) -> str:
        return self.final_status


class Argumentless(Consumer):
    def _consume(self) -> str:  # type: ignore[override]
        return self.final_status


class Async(Consumer):
    async def _consume(self, redis_hash: str) -> str:  # type: ignore[override]
        return self.final_status


class Yielding(Consumer):
    def _consume(self, redis_hash: str) -> Iterator[str]:  # type: ignore[override]
        yield self.final_status


class Constant(Consumer):
    _consume = "done"  # type: ignore[assignment]


class Property(ImageFileConsumer):
    @property
    def analyze(self) -> Any:
        return {}


class Abstract(Good, ABC):
    @abstractmethod
    def peak(self) -> float:
        """What each of them finds."""


class Narrow(Good):
    def __init__(self, redis_client: Any) -> None:
        super().__init__(redis_client, None, "predict")


class Wide(Good):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Jobless(ImageFileConsumer):
    def analyze(self, image: Any) -> Any:  # type: ignore[override]
        return {}


class AsyncAnalysis(ImageFileConsumer):
    async def analyze(self, image: Any, job: Any) -> Any:  # type: ignore[override]
        return {}


class OwnAnalysis(Good):
    def analyze(self) -> None:
        """A method that no worker knows."""


class OtherOptions(Good):
    Options = dict  # type: ignore[assignment]


@pytest.mark.parametrize("good", [Good, Wide, OwnAnalysis, ImageFileConsumer])
def test_what_a_worker_can_run_is_given_back(good: type[Consumer]) -> None:
    assert check_class(good, "my:Class") is good


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (object, "is no subclass of redis_consumer.consumers.Consumer"),
        (Good._consume, "is no subclass"),
        (Consumer, r"has no method _consume\(self, redis_hash\)"),
        (Argumentless, r"its _consume takes \(self\)"),
        (Async, "its _consume is async"),
        (Jobless, r"its analyze takes \(self, image: 'Any'\).*; write it as def analyze\(self, image, job\)"),
        (AsyncAnalysis, "its analyze is async"),
        (Yielding, "its _consume yields"),
        (Constant, "its _consume is no method but 'done'"),
        (Property, "its analyze is no method but <property"),
        (Abstract, "is abstract: it lacks peak"),
        (Narrow, "its constructor must take the arguments redis_client, storage_client, queue"),
        (OtherOptions, "its Options is no subclass"),
    ],
)
def test_what_no_worker_can_run_is_refused(bad: object, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^my:Class.*{text}"):
        check_class(bad, "my:Class")
