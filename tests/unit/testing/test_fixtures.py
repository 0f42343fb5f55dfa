"""Is the plugin found where the package is installed, and does it cost nothing before it is used?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def test_the_plugin_imports_nothing_heavy() -> None:
    (entry,) = [entry for entry in entry_points(group="pytest11") if entry.name == "redis_consumer"]
    heavy = ("numpy", "redis", "fakeredis", "pydantic", "obstore", "redis_consumer.consumers")
    code = f"import sys, {entry.value}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_example_of_an_authors_test_passes(tmp_path: Path) -> None:
    for name in ("counter.py", "test_counter.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_counter.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "19 passed" in ran.stdout


def test_unknown_names_are_none() -> None:
    from redis_consumer import testing

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing
