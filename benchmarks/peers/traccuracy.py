"""Scores tracks in the format of the Cell Tracking Challenge with traccuracy (BSD licence).

Run as ``python -m benchmarks.peers.traccuracy TRUTH FOUND`` in the library's own environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from traccuracy import run_metrics
from traccuracy.loaders import load_ctc_data
from traccuracy.matchers import CTCMatcher
from traccuracy.metrics import BasicMetrics, CTCMetrics, DivisionMetrics


def measure(truth: Path, found: Path) -> dict[str, Any]:
    """Scores of the tracks in one folder by those in another."""
    graphs = [load_ctc_data(str(folder), str(folder / "res_track.txt"), folder.name) for folder in (truth, found)]
    metrics = [CTCMetrics(), DivisionMetrics(max_frame_buffer=0), BasicMetrics()]
    results, _ = run_metrics(*graphs, CTCMatcher(), metrics)
    values = {name: value for result in results for name, value in _flat(result["results"]).items()}
    return {
        "tra": values["TRA"],
        "link_f1": values["Edge F1"],
        "division_f1": values["Frame Buffer 0.Division F1"],
    }


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return result


if __name__ == "__main__":
    print(json.dumps(measure(*map(Path, sys.argv[1:]))))
