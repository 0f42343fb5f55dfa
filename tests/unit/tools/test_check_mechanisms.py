"""The table of mechanisms fits code, tests and page, and the check reports a mechanism that no test covers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tools.check_mechanisms import Mechanism, check_edits, main, read_table

from support.documents import DOCS, extension

MECHANISMS = read_table()
PAGE = (DOCS / "reliability.rst").read_text(encoding="utf-8")
TABLE = PAGE.partition("\nWhat each fault does\n")[2].partition("\nWhat Redis needs\n")[0]
ROWS = {
    match[1]: set(re.findall(r":test:`([^`]+)`", row))
    for row in re.split(r"^   \* - ", TABLE, flags=re.MULTILINE)
    if (match := re.match(r"\*\*(.+?)\*\*", row))
}

links = extension("test_links")


def name_of(mechanism: Mechanism) -> str:
    return mechanism.name


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=name_of)
def test_what_switches_a_mechanism_off_fits_the_code(mechanism: Mechanism) -> None:
    check_edits([mechanism])
    assert all(edit.file.startswith("src/") and edit.text != edit.off for edit in mechanism.edits)


def test_names_differ() -> None:
    assert len({mechanism.name for mechanism in MECHANISMS}) == len(MECHANISMS)


@pytest.mark.parametrize("row", ROWS)
def test_each_test_of_a_row_has_a_mechanism(row: str) -> None:
    """The chaos run takes minutes, and shows all rows at once."""
    tests = {test for mechanism in MECHANISMS if mechanism.row == row for test in mechanism.tests}
    assert tests
    assert {test for test in ROWS[row] if not test.startswith("chaos/")} == tests


def test_each_mechanism_has_a_row() -> None:
    assert len(ROWS) > 20
    assert {mechanism.row for mechanism in MECHANISMS} <= set(ROWS)


def test_each_test_exists() -> None:
    named = {test for mechanism in MECHANISMS for test in mechanism.tests}
    missing = [test for test in named if test.partition("::")[2] not in links.names_in(test.partition("::")[0])]
    assert missing == []


ENTRY = """
[[mechanism]]
name = "{name}"
row = "A row"
what = "does something"
tests = ["unit/test_job.py::{test}"]
[[mechanism.edits]]
file = "src/redis_consumer/job.py"
text = 'DONE = "done"'
off = 'DONE = "ready"'
"""
CAUGHT = ENTRY.format(name="caught", test="test_done_and_failed_are_final")
MISSED = ENTRY.format(name="missed", test="test_a_label_of_99_is_none")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    table = tmp_path / "table.toml"
    table.write_text(CAUGHT + MISSED)
    return table


def test_what_no_test_catches_is_told(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(table), "--jobs", "1", "--json"]) == 1
    written = json.loads(capsys.readouterr().out)
    assert (written["mechanisms"], written["caught"]) == (2, 1)
    first, second = written["verdicts"]
    assert (first["name"], first["caught_by"]) == ("caught", ["unit/test_job.py::test_done_and_failed_are_final"])
    assert (second["caught_by"], second["missed_by"]) == ([], ["unit/test_job.py::test_a_label_of_99_is_none"])


def test_what_breaks_everything_shows_nothing(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(CAUGHT.replace("""'DONE = "ready"'""", "'DONE = nothing'"))
    assert main(["--table", str(table), "--jobs", "1"]) == 1
    assert "BROKEN      A row: does something [caught]: no job ends any more" in capsys.readouterr().out


def test_one_entry_may_be_checked_alone(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(table), "--jobs", "1", "--only", "caught"]) == 0
    assert "caught      A row: does something [caught] by unit/test_job.py" in capsys.readouterr().out


def test_tests_have_to_pass_before(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(ENTRY.format(name="broken", test="test_nothing"))
    assert main(["--table", str(table), "--jobs", "1"]) == 1
    assert "have to pass while nothing is switched off" in capsys.readouterr().err


def test_an_entry_that_does_not_fit_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(CAUGHT.replace('"done"', '"finished"'))
    assert main(["--table", str(table), "--jobs", "1"]) == 2
    assert "caught: src/redis_consumer/job.py: found 0 times, wanted 1" in capsys.readouterr().err


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nothing"]) == 2
    assert "no entry nothing; --list names them" in capsys.readouterr().err


def test_entries_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MECHANISMS)
