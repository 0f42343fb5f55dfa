"""The check of words: what it finds, where it looks, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import check_words


@pytest.mark.parametrize(
    "line",
    [
        "Redis is away",
        "fails in words",
        "some 20 pixels",
        "the queue is told",
        "What becomes of a job",
        "may as well",
        "None where absent",
        "REDIS_URL wins",
    ],
)
def test_habits_are_found_with_what_to_write_instead(line: str) -> None:
    ((_, advice),) = check_words.find(line)
    assert advice


@pytest.mark.parametrize(
    "line",
    [
        "some tiles",
        "as well as this",
        "the folder where it is",
        "in other words",
        "it goes on to the next",
        "Redis is unavailable",
    ],
)
def test_plain_lines_are_left_alone(line: str) -> None:
    assert list(check_words.find(line)) == []


def test_of_python_only_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text('"""Reads it."""\nis_away = told = 1  # it is away\nMESSAGE = "fails in words"\n')
    found = [number for number, line in check_words.lines_of(path) if list(check_words.find(line))]
    assert sorted(found) == [2, 3]


def test_a_docstring_that_asks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "asks.py"
    path.write_text('"""What does it do?"""\n')
    assert check_words.main([str(path)]) == 1
    assert "asks a question" in capsys.readouterr().err
