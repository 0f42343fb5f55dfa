from __future__ import annotations

from contextlib import ExitStack

from redis_consumer.serving.transport.balance import Balance


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def next_of(balance: Balance) -> str:
    with balance.chosen() as target:
        return target


def test_servers_take_turns() -> None:
    balance = Balance(["a", "b", "c"], Clock())
    assert [next_of(balance) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_the_server_with_the_fewest_calls_under_way_is_next() -> None:
    balance = Balance(["a", "b"], Clock())
    with ExitStack() as calls:
        assert calls.enter_context(balance.chosen()) == "a"
        assert [next_of(balance) for _ in range(3)] == ["b", "b", "b"]
    assert next_of(balance) == "a"


def test_a_failed_server_rests_and_comes_back() -> None:
    clock = Clock()
    balance = Balance(["a", "b"], clock)
    balance.failed("a")
    assert [next_of(balance) for _ in range(2)] == ["b", "b"]
    clock.now_s += 11
    assert next_of(balance) == "a"


def test_an_answer_ends_the_rest() -> None:
    balance = Balance(["a", "b"], Clock())
    balance.failed("a")
    balance.answered("a")
    assert next_of(balance) == "a"


def test_the_one_whose_rest_ends_first_is_asked_when_all_rest() -> None:
    clock = Clock()
    balance = Balance(["a", "b"], clock)
    balance.failed("b")
    clock.now_s += 1
    balance.failed("a")
    assert not balance.has_rested()
    assert next_of(balance) == "b"
    clock.now_s += 9.5
    assert balance.has_rested()
