"""The plug-in is found where the package is installed, and loads nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TEST = """
def test_it(run_consumer, example_image, fake_model):
    assert run_consumer("image", example_image, model=fake_model).status == "done"
"""


def test_the_plugin_imports_nothing_heavy() -> None:
    (entry,) = [entry for entry in entry_points(group="pytest11") if entry.name == "redis_consumer"]
    heavy = ("numpy", "redis", "fakeredis", "pydantic", "obstore", "redis_consumer.consumers")
    code = f"import sys, {entry.value}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_authors_test_has_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_it.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_unknown_names_are_none() -> None:
    from redis_consumer import testing

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing
