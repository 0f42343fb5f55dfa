from __future__ import annotations

import os
from pathlib import Path

import pytest

from redis_consumer.serving.cpus import usable_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_without_a_quota_all_cpus_of_the_process_count(tmp_path: Path) -> None:
    assert usable_cpus([tmp_path]) == usable_cpus([]) == 8


def test_without_affinity_all_cpus_of_the_machine_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cpus([tmp_path]) == 5


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8), ("?", 8), ("1 0", 8)],
)
def test_a_quota_bounds_them_to_whole_cpus(tmp_path: Path, text: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert usable_cpus([tmp_path]) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("300000", 3), ("-1", 8)])
def test_a_quota_of_the_older_kind_bounds_them(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert usable_cpus([tmp_path]) == cpus


def test_the_smallest_quota_counts(tmp_path: Path) -> None:
    groups = [tmp_path / name for name in ("outer", "inner")]
    for group, quota in zip(groups, (2, 4), strict=True):
        group.mkdir()
        (group / "cpu.max").write_text(f"{quota}00000 100000")
    assert usable_cpus(groups) == 2


def test_by_default_the_groups_of_this_process_count() -> None:
    assert 1 <= usable_cpus() <= 8
