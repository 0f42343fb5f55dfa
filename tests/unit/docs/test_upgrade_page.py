"""Does the page on the kiosk's names tell what became of each variable and field?"""

from __future__ import annotations

import re

import pytest

from contract.kiosk_names import FIELDS, VARIABLES
from redis_consumer.settings import Settings
from support.documents import DOCS, extension

TEXT = (DOCS / "upgrade-names.rst").read_text(encoding="utf-8")
ROWS = re.findall(r"^   ([A-Z][A-Z0-9_, ]+): (\S.*)$", TEXT, re.MULTILINE)


def test_each_variable_has_one_row() -> None:
    assert sorted(name for names, _ in ROWS for name in names.split(", ")) == sorted(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_is_still_read(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_each_field_has_one_row() -> None:
    rows = re.findall(r"^   \* - ((?:``[a-z_:]+``(?:, )?)+)$", TEXT, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"``([a-z_:]+)``", row)) == sorted(FIELDS)


def test_variables_that_are_not_used_say_so_in_both_places() -> None:
    unused = {name for names, change in ROWS if "**Not used**" in change for name in names.split(", ")}
    described = {name for name in VARIABLES if "not used" in str(Settings.model_fields[name.lower()].description)}
    assert unused == described


def test_a_row_of_the_table_has_default_meaning_and_change() -> None:
    text = "\n".join(extension("settings_table").changes(["REDIS_HOST, REDIS_PORT: All commands go to the master"]))
    assert "``6379``" in text
    assert "Port of Redis, or of its Sentinel" in text
    assert text.count("     - All commands go to the master") == 2
