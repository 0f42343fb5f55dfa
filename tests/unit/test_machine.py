from __future__ import annotations

import os
from pathlib import Path

import pytest

from redis_consumer.machine import control_groups, usable_bytes, usable_cpus

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


def test_by_default_the_quotas_of_this_process_count() -> None:
    assert 1 <= usable_cpus() <= 8


@pytest.mark.parametrize("name", ["memory.max", "memory.limit_in_bytes"])
def test_a_limit_of_either_version_counts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("1048576\n")
    assert usable_bytes([tmp_path]) == 2**20


@pytest.mark.parametrize("text", ["max", str(2**63 - 4096), ""])
def test_without_a_limit_all_memory_of_the_machine_counts(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.max").write_text(f"{text}\n")
    assert usable_bytes([tmp_path]) == usable_bytes([]) == MACHINE


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    for name, limit in (("outer", 2**20), ("inner", 2**21)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.max").write_text(str(limit))
    assert usable_bytes([tmp_path / "outer", tmp_path / "inner"]) == 2**20


def test_by_default_the_limits_of_this_process_count() -> None:
    assert 0 < usable_bytes() <= MACHINE


def groups(tmp_path: Path, table: str, *existing: str) -> set[str]:
    root = tmp_path / "cgroup"
    for name in ("", *existing):
        (root / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "table").write_text(table)
    found = control_groups("cpu", root=root, table=tmp_path / "table")
    return {str(folder.relative_to(root)) for folder in found}


def test_the_own_group_and_those_around_it_count(tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/pods/one\n", "pods/one/slot") == {".", "pods", "pods/one"}


def test_the_older_version_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    table = "5:memory:/pods\n4:cpu,cpuacct:/pods/one\n"
    assert groups(tmp_path, table, "cpu/pods/one", "memory/pods") == {".", "cpu", "cpu/pods", "cpu/pods/one"}


@pytest.mark.parametrize("table", ["0::/pods/of/the/host\n", "0::/../other\n", "", "no table"])
def test_a_container_may_see_its_own_group_only_as_the_root(tmp_path: Path, table: str) -> None:
    assert groups(tmp_path, table) == {"."}


def test_without_a_table_the_root_counts(tmp_path: Path) -> None:
    assert control_groups("cpu", root=tmp_path, table=tmp_path / "none") == [tmp_path]
