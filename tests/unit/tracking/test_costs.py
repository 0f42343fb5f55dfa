"""Which pairs are taken."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.tracking.costs import Pairs, assign

prices = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(-5, 12), max_size=12)


def pairs_of(costs: dict[tuple[int, int], int]) -> Pairs:
    keys = np.array(list(costs), np.intp).reshape(-1, 2)
    return Pairs(keys[:, 0], keys[:, 1], np.array(list(costs.values()), float))


@given(prices, st.integers(-2, 10))
def test_no_other_choice_is_cheaper(costs: dict[tuple[int, int], int], skip: int) -> None:
    taken = [list(costs)[number] for number in assign(pairs_of(costs), (4, 4), skip)]
    assert len({row for row, _ in taken}) == len({column for _, column in taken}) == len(taken)
    price = sum(costs[pair] for pair in taken) + skip * (4 - len(taken))
    best = min(
        sum(min(costs.get((row, column), skip), skip) for row, column in enumerate(order))
        for order in permutations(range(4))
    )
    assert price == best


def test_a_pair_that_costs_nothing_is_taken() -> None:
    assert assign(pairs_of({(1, 2): 0}), (2, 3), 5.0).tolist() == [0]


def test_nothing_is_taken_of_nothing() -> None:
    assert assign(pairs_of({}), (0, 3), 5.0).tolist() == []
