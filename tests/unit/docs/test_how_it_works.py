"""Compares the page on the design with the files and layers of the package."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/how-it-works.rst").read_text()
PACKAGE = ROOT / "src/redis_consumer"


def test_every_file_on_the_page_exists() -> None:
    files = set(re.findall(r"``(\w+/[\w/]+\.py)``", PAGE))

    assert len(files) >= 12
    assert [file for file in sorted(files) if not (PACKAGE / file).exists()] == []


def test_one_image_job_is_told_in_at_most_twelve_files() -> None:
    story = PAGE[PAGE.index("One image job, file by file") : PAGE.index("The layers of the code")]

    assert 1 <= len(re.findall(r"^   \* - \d+$", story, re.MULTILINE)) <= 12


def test_the_page_draws_the_layers_that_the_linter_checks() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    checked = set(re.findall(r"\w+", config["importlinter:contract:floors"]["layers"]))
    drawing = PAGE[PAGE.index("A linter checks this") : PAGE.index("``processing`` and ``tracking``")]

    assert checked - set(re.findall(r"\w+", drawing)) == {"__main__"}
