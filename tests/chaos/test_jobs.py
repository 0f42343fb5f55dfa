"""Every job gets one result while workers, Redis, bucket and model server die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JOBS = 100
SEED = 22


def run_chaos(folder: Path, *options: str) -> dict[str, Any]:
    """Run the harness as a user does; on failure its last words hold the history of the jobs that broke a promise."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "chaos", "--json", *options],
        cwd=ROOT,
        env={**variables, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run for all tests of this file; about a minute."""
    return run_chaos(tmp_path_factory.mktemp("chaos"), "--jobs", str(JOBS), "--seed", str(SEED))


pytestmark = pytest.mark.timeout(400)


def test_loses_nothing(figures: dict[str, Any]) -> None:
    assert (figures["submitted"], figures["lost"], figures["done"] + figures["failed"]) == (JOBS, 0, JOBS)


def test_shows_each_result_once(figures: dict[str, Any]) -> None:
    assert (figures["duplicate_results"], figures["double_completions"], figures["missing_objects"]) == (0, 0, 0)


def test_fails_bad_inputs_only(figures: dict[str, Any]) -> None:
    assert (figures["failed"], figures["wrong_ends"]) == (figures["bad_inputs"], 0)


def test_metrics_agree_with_the_ledger(figures: dict[str, Any]) -> None:
    assert figures["metrics"] == {"done": figures["done"], "failed": figures["failed"], "dead": 0}


def test_leaves_nothing_behind(figures: dict[str, Any]) -> None:
    assert (figures["residue"], figures["orphans"], figures["not_recovered"]) == (0, 0, 0)


def test_has_killed_what_it_should(figures: dict[str, Any]) -> None:
    assert figures["kills"] > 5
    assert figures["redis_restarts"] > 0
    assert {"slot", "worker", "supervisor", "cut", "lose-replies", "storage"} <= set(figures["faults"])


@pytest.mark.slow
def test_keeps_what_the_replica_confirmed_at_a_failover(tmp_path: Path) -> None:
    seen = run_chaos(tmp_path, "--jobs", str(JOBS), "--seed", str(SEED), "--sentinel")
    assert (seen["failovers"], seen["lost"], seen["duplicate_results"]) == (1, 0, 0)
