"""Folders of killed workers are removed, and no others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.worker.temp_folders import PREFIX, TempFolders

NOW_OLD = (0.0, 0.0)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TempFolders]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = TempFolders()
    yield folders
    folders.close()


def left_over(tmp_path: Path, *names: str) -> Path:
    """What a killed worker has left long ago."""
    root = tmp_path / f"{PREFIX}killed"
    root.mkdir()
    for name in names:
        (root / name).touch()
    os.utime(root, NOW_OLD)
    return root


@pytest.mark.parametrize("names", [["cells.tif"], []])
def test_what_a_killed_worker_has_left_goes(folders: TempFolders, tmp_path: Path, names: list[str]) -> None:
    root = left_over(tmp_path, *names)
    folders.remove_stale()
    assert not root.exists()


def test_a_folder_that_is_being_made_stays(folders: TempFolders, tmp_path: Path) -> None:
    root = left_over(tmp_path)
    os.utime(root)
    folders.remove_stale()
    assert root.exists()


def test_the_folders_of_a_living_worker_stay(folders: TempFolders) -> None:
    other = TempFolders()
    os.utime(other.shared.parent, NOW_OLD)
    folders.remove_stale()
    assert other.shared.exists()
    other.close()


def test_where_nothing_can_be_written_the_start_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="temporary files: can't make a folder .*TMPDIR"):
        TempFolders()
