"""Is the table of settings complete and true?"""

from __future__ import annotations

from redis_consumer.settings import Settings
from support.documents import extension

table = extension("settings_table")


def test_every_setting_is_in_one_group() -> None:
    names = [name for group in table.groups().values() for name in group]
    assert names == [name.upper() for name in Settings.model_fields]


def test_every_group_has_a_heading() -> None:
    assert all(title[0].isupper() for title in table.groups())


def test_defaults_that_are_worked_out_are_said_in_words() -> None:
    worked_out = {name.upper() for name, field in Settings.model_fields.items() if field.default_factory is not None}
    assert set(table.DEPENDENT) == worked_out


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_row_says_name_default_meaning_and_values() -> None:
    text = "\n".join(table.rows(["REDIS_PORT"]))
    assert "``REDIS_PORT``" in text
    assert "``6379``" in text
    assert "Port of Redis, or of its Sentinel. Takes a whole number from 1 to 65535" in text


def test_what_markup_would_swallow_is_escaped() -> None:
    assert r"<QUEUE>-zip" in "\n".join(table.rows(["QUEUE"]))
    assert r"TF\_HOST" in "\n".join(table.rows(["MODEL_SERVER"]))
