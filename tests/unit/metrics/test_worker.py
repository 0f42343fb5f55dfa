"""Metrics have the documented names and labels."""

from __future__ import annotations

import pytest

from redis_consumer.metrics import Metric, queues, worker

ALL = (*worker.ALL, *queues.ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_name_says_whose_it_is_and_its_unit(metric: Metric) -> None:
    assert metric.name.startswith("redis_consumer_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")


def test_each_is_listed_once() -> None:
    for module in (worker, queues):
        declared = [value for value in vars(module).values() if isinstance(value, Metric)]
        assert sorted(module.ALL, key=id) == sorted(declared, key=id)


def test_buckets_ascend() -> None:
    for buckets in (worker.CALL_BUCKETS, worker.JOB_BUCKETS):
        assert list(buckets) == sorted(set(buckets))
