"""A wrong folder is refused before the job runs."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from redis_consumer.cli.app import app


def test_a_folder_that_can_not_be_made_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["reproduce", "predict:a:1", "--keep", str(tmp_path / "file" / "kept")])
    assert result.exit_code == 2
    assert "cannot be written: Not a directory; choose another folder" in result.stderr
