from __future__ import annotations

from redis_consumer.serving.remembered import Remembered


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_value_is_believed_until_it_expires() -> None:
    clock = Clock()
    remembered: Remembered[str, int] = Remembered(5, clock)
    assert remembered.get("a") is None
    remembered.put("a", 1)
    clock.now_s = 4.9
    assert remembered.get("a") == 1
    clock.now_s = 5
    assert remembered.get("a") is None


def test_with_no_time_nothing_is_believed() -> None:
    remembered: Remembered[str, int] = Remembered(0, Clock())
    remembered.put("a", 1)
    assert remembered.get("a") is None


def test_everything_can_be_forgotten() -> None:
    remembered: Remembered[str, int] = Remembered(5, Clock())
    remembered.put("a", 1)
    remembered.clear()
    assert remembered.get("a") is None


def test_only_what_is_not_believed_is_asked() -> None:
    clock = Clock()
    remembered: Remembered[str, int] = Remembered(5, clock)
    answers = iter([1, 2])
    assert [remembered.get_or("a", lambda: next(answers)) for _ in range(2)] == [1, 1]
    clock.now_s += 5
    assert remembered.get_or("a", lambda: next(answers)) == 2
