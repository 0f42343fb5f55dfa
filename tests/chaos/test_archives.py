"""Every archive and every movie gets one complete result while workers are killed in each phase, and Redis too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JOBS = 16
SEED = 6
SECONDS = 45

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run for all tests of this file; about half a minute."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    options = {"--jobs": JOBS, "--seed": SEED, "--seconds": SECONDS}
    command = [
        "chaos",
        "--archives",
        "--json",
        *(text for name, value in options.items() for text in (name, str(value))),
    ]
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


def test_loses_no_parent(figures: dict[str, Any]) -> None:
    assert (figures["done"], figures["lost"]) == (sum(figures["submitted"].values()), 0)
    assert min(figures["submitted"].values()) >= JOBS // 2 - 2


def test_shows_one_whole_result_of_each(figures: dict[str, Any]) -> None:
    assert (figures["second_results"], figures["wrong_results"], figures["wrong_ends"]) == (0, 0, 0)


def test_makes_no_child_twice(figures: dict[str, Any]) -> None:
    assert (figures["stray_children"], figures["child_completions_too_many"]) == (0, 0)


def test_leaves_no_family_behind(figures: dict[str, Any]) -> None:
    assert figures["residue"] == 0


def test_has_killed_slots_and_supervisors_in_each_phase(figures: dict[str, Any]) -> None:
    assert figures["phases_missed"] == []
    assert set(figures["kills"]) == {"zip", "tracking", "redis"}
    assert figures["kills"]["redis"] > 0
