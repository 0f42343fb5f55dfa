from __future__ import annotations

import os
from pathlib import Path

import pytest

from redis_consumer.serving.cpus import usable_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_without_a_quota_all_cpus_of_the_process_count(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


def test_without_affinity_all_cpus_of_the_machine_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cpus(tmp_path) == 5


@pytest.mark.parametrize(
    ("text", "cpus"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("?", 8)]
)
def test_a_quota_bounds_them(tmp_path: Path, text: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("300000", 3), ("-1", 8)])
def test_a_quota_of_the_older_kind_bounds_them(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert usable_cpus(tmp_path) == cpus
