"""Does every archive get one whole result while workers are killed in each of its phases, and Redis with them?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ARCHIVES = 20
SEED = 6

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run for all tests of this file; about a minute."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    command = ["chaos", "--archives", "--json", "--jobs", str(ARCHIVES), "--seed", str(SEED)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command],
        cwd=ROOT,
        env={**variables, "TMPDIR": str(tmp_path_factory.mktemp("chaos"))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def test_loses_no_archive(figures: dict[str, Any]) -> None:
    assert (figures["submitted"], figures["done"], figures["lost"]) == (ARCHIVES, ARCHIVES, 0)


def test_shows_one_whole_result_of_each(figures: dict[str, Any]) -> None:
    assert (figures["second_results"], figures["wrong_results"], figures["wrong_ends"]) == (0, 0, 0)


def test_makes_no_child_twice(figures: dict[str, Any]) -> None:
    assert (figures["stray_children"], figures["child_completions_too_many"]) == (0, 0)


def test_leaves_no_family_behind(figures: dict[str, Any]) -> None:
    assert figures["residue"] == 0


def test_has_killed_in_each_phase(figures: dict[str, Any]) -> None:
    assert min(figures["kills"][phase] for phase in ("unpacking", "image", "gathering", "redis")) > 0
