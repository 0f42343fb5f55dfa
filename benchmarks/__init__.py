"""Measures speed and memory, each beside a reference measured in the same run: ``python -m benchmarks``."""

import sys
from pathlib import Path

# Servers, models and movies that tests share, and the chaos harness.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
