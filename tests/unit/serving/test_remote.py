from __future__ import annotations

from redis_consumer.serving.remote import TtlCache


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def answer(cache: TtlCache[str, int], value: int) -> int:
    return cache.get_or("a", lambda: value)


def test_a_value_is_valid_until_it_expires() -> None:
    clock = Clock()
    cache: TtlCache[str, int] = TtlCache(5, clock)
    assert answer(cache, 1) == 1
    clock.now_s = 4.9
    assert answer(cache, 2) == 1
    clock.now_s = 5
    assert answer(cache, 3) == 3


def test_with_no_time_nothing_is_kept() -> None:
    cache: TtlCache[str, int] = TtlCache(0, Clock())
    assert [answer(cache, value) for value in (1, 2)] == [1, 2]


def test_expired_values_are_still_known() -> None:
    cache: TtlCache[str, int] = TtlCache(0, Clock())
    assert "a" not in cache
    answer(cache, 1)
    assert "a" in cache


def test_everything_can_be_forgotten() -> None:
    cache: TtlCache[str, int] = TtlCache(5, Clock())
    answer(cache, 1)
    cache.clear()
    assert "a" not in cache
    assert answer(cache, 2) == 2
