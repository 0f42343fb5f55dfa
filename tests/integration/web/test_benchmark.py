"""The benchmark of the server runs, with few watchers and a small upload."""

from __future__ import annotations

import sys

import pytest
from benchmarks import web, web_watchers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc"),
]


def test_it_gives_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, values in (
        (web, {"SIDE_PX": 1024, "ROUNDS": 1}),
        (web_watchers, {"WATCHERS": 20, "JOBS": 10, "SECONDS": 2}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    figures = web.measure(upload_mb=16)
    assert set(figures) == {
        "start_s",
        "idle_rss_mb",
        "tile_cpu_ms",
        "watchers_core_pct",
        "watchers_p95_s",
        "upload_rss_mb",
        "upload_disk_ratio",
    }
    assert figures["upload_disk_ratio"] <= 1.05
