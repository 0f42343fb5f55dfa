"""The check of the image says what it lacks, and runs it as the image and a cluster do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tools import check_image, container

CONFIG = {
    "User": "10001:10001",
    "WorkingDir": "/usr/src/app",
    "Env": ["HEALTH_ADDRESS=0.0.0.0:8080", "PATH=/opt/venv/bin:/bin"],
    "Entrypoint": [],
    "Cmd": ["python", "start.py"],
}


def test_a_machine_without_the_programs_is_told_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(check_image, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_image.main([]) == 2
    assert "buildah, debootstrap, unshare, chroot not found; install them, e.g. apt install" in capsys.readouterr().err


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "PROGRAMS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(container.NotHere, match="not root; building and running images needs root"):
        container.check_machine()


def test_the_images_own_command_runs_as_its_user_with_variables_on_top_of_its_own(tmp_path: Path) -> None:
    image = container.Container(tmp_path / "root", CONFIG, tmp_path / "bucket")
    words = image.words(image.command, {"HEALTH_ADDRESS": "127.0.0.1:1"})
    place = [str(tmp_path / "root"), str(tmp_path / "bucket"), "10001:10001", "/usr/src/app"]
    assert words[words.index("run") + 1 :] == [*place, *CONFIG["Env"], "HEALTH_ADDRESS=127.0.0.1:1", *CONFIG["Cmd"]]
