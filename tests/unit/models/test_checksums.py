from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from redis_consumer.models.checksums import SUMS_FILE, is_intact, write_sums


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path)
    return tmp_path


def test_what_was_noted_is_intact(noted: Path) -> None:
    assert is_intact(noted)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", SUMS_FILE])
@pytest.mark.parametrize("content", [b"", b"?\xff", None])
def test_what_changed_or_went_away_is_not(noted: Path, name: str, content: bytes | None) -> None:
    (noted / name).unlink()
    if content is not None:
        (noted / name).write_bytes(content)
    assert not is_intact(noted)


def test_a_folder_without_notes_is_not(tmp_path: Path) -> None:
    assert not is_intact(tmp_path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum isn't installed")
def test_the_notes_are_those_of_the_usual_command(noted: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=noted, check=True, capture_output=True)
