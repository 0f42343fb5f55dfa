from __future__ import annotations

import os
from pathlib import Path

import pytest

from redis_consumer.serving.memory import usable_bytes

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


def test_by_default_the_groups_of_this_process_count() -> None:
    assert 0 < usable_bytes() <= MACHINE
