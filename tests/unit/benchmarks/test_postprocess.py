"""The benchmark of post-processing compares the same task."""

from __future__ import annotations

import pytest
from benchmarks import postprocess


def test_both_functions_find_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postprocess, "SIDE_PX", 320)
    monkeypatch.setattr(postprocess, "OBJECTS", 49)
    monkeypatch.setattr(postprocess, "RUNS", 1)
    figures = postprocess.measure()
    assert figures["same_labels"]
    assert figures["ap"] == 1
    assert 45 <= figures["objects"] <= 49
    assert figures["plain_ms"] > 0
    assert figures["ours_ms"] > 0
