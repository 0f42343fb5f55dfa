"""The figures of fleets, and the tables that show them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.scaling import GPUS, WORKERS, show, simulate_fleets
from simulation.costs import Costs, Sample
from simulation.parts import Fleet

COSTS = Costs([Sample(0.003, 0.001, 0.003, 0.001, 0.005, 0.002)], 0.0003, 7, 1, 1, 0.003, 1e6, 1e6, slot_bytes=10**8)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return simulate_fleets(COSTS, Fleet(), images=2_000, seed=1, tell=lambda *_: None)


def test_every_fleet_has_its_figures(figures: dict[str, Any]) -> None:
    rows = figures["table"]
    assert [(row["gpus"], row["workers"]) for row in rows] == [(gpus, workers) for gpus in GPUS for workers in WORKERS]
    assert all(row["images_per_s"] <= min(row["limits_images_per_s"].values()) * 1.01 for row in rows)
    assert list(figures["recommended"]) == [str(gpus) for gpus in GPUS]


def test_one_worker_is_the_bottleneck_until_its_gpu_is(figures: dict[str, Any]) -> None:
    found = {(row["gpus"], row["workers"]): row["bottleneck"] for row in figures["table"]}
    assert found[1, 1] == found[64, 10] == "slots"
    assert found[1, 10] == found[1, 1000] == "gpus"
    assert found[64, 1000] == "bucket_writes"


def test_all_patterns_send_all_images(figures: dict[str, Any]) -> None:
    assert [row["arrivals"] for row in figures["patterns"]] == [
        "burst", "steady", "burst, autoscaler", "day, autoscaler",
    ]  # fmt: skip
    assert {row["images"] for row in figures["patterns"]} == {2_000}


def test_figures_are_shown_and_are_json(figures: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    checked = [{"workers": 1, "measured_images_per_s": 2.0, "simulated_images_per_s": 2.1, "error_pct": 5.0}]
    show({**figures, "costs": {"work_ms": 11.0}, "checked": checked})
    shown = capsys.readouterr().out
    assert "Fleets" in shown
    assert "bucket writes" in shown
    assert json.loads(json.dumps(figures))["seed"] == 1
