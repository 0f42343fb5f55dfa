"""Each test that the pages name exists, and the times on the page about reliability are those of the code."""

from __future__ import annotations

import re

import pytest

from redis_consumer.queue import OUTAGES_ALLOWED, upkeep
from redis_consumer.settings import Settings
from support.documents import DOCS, PAGES, extension

TEXT = (DOCS / "reliability.rst").read_text(encoding="utf-8")
NAMED = sorted({name for page in PAGES for name in re.findall(r":test:`([^`]+)`", page.read_text(encoding="utf-8"))})
DEFAULTS = re.findall(r"^   \* - ``([A-Z_]+)``\n     - ([\d.]+)", TEXT, re.MULTILINE)

links = extension("test_links")


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert function in links.names_in(file)


def rows_of_the_fault_table() -> list[str]:
    table = TEXT.partition("What each fault does")[2].partition("\n\nWhat Redis needs")[0]
    return re.split(r"^   \* - ", table, flags=re.MULTILINE)[2:]


def test_each_row_of_the_fault_table_names_its_tests() -> None:
    rows = rows_of_the_fault_table()
    assert len(rows) > 20
    assert [row for row in rows if ":test:`" not in row] == []


@pytest.mark.parametrize(("name", "value"), DEFAULTS)
def test_defaults_on_the_page_are_those_of_the_settings(name: str, value: str) -> None:
    assert float(value) == float(Settings.model_fields[name.lower()].default)


def test_the_defaults_on_the_page_are_all_that_matter() -> None:
    assert {name for name, _ in DEFAULTS} >= {"LEASE_TIMEOUT", "RENEW_INTERVAL", "SWEEP_INTERVAL", "MAX_ATTEMPTS"}


def test_numbers_of_the_queue_are_on_the_page() -> None:
    assert f"have had no lease for {upkeep.ORPHAN_S:g} s" in TEXT
    assert f"more than {('zero', 'one', 'two', 'three', 'four')[OUTAGES_ALLOWED]} outages" in TEXT


def test_a_name_reads_as_a_sentence() -> None:
    assert links.sentence("test_one_sweep_at_a_time") == "one sweep at a time"


def test_a_file_that_is_not_there_has_no_tests() -> None:
    assert links.names_in("integration/test_nothing.py") == frozenset()
