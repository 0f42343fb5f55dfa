from __future__ import annotations

from pathlib import Path

import pytest

from redis_consumer.serving.cgroups import folders


def groups(tmp_path: Path, table: str, *existing: str) -> set[str]:
    root = tmp_path / "cgroup"
    for name in ("", *existing):
        (root / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "table").write_text(table)
    found = folders("cpu", root=root, table=tmp_path / "table")
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
    assert folders("cpu", root=tmp_path, table=tmp_path / "none") == [tmp_path]
