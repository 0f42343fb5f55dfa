"""The tables of the documentation that describe the code: complete, true and valid markup."""

from __future__ import annotations

import re

import pytest
from tools import page_tables as tables

from redis_consumer.consumers.registry import BUILT_IN
from redis_consumer.metrics import queues, worker
from redis_consumer.settings import Settings
from redis_consumer.testing import ConsumerContract


def test_every_setting_is_in_one_group() -> None:
    names = [name for group in tables.groups().values() for name in group]
    assert names == [name.upper() for name in Settings.model_fields]


def test_every_group_has_a_heading() -> None:
    assert all(title[0].isupper() for title in tables.groups())


def test_defaults_that_are_computed_are_described() -> None:
    computed = {name.upper() for name, field in Settings.model_fields.items() if field.default_factory is not None}
    assert set(tables.DEPENDENT) == computed


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_row_has_name_default_meaning_and_values() -> None:
    text = "\n".join(tables.setting_rows(["REDIS_PORT"]))
    assert "``REDIS_PORT``" in text
    assert "``6379``" in text
    assert "Port of Redis, or of its Sentinel. Takes a whole number from 1 to 65535" in text


def test_characters_of_markup_are_escaped() -> None:
    assert r"<QUEUE>-zip" in "\n".join(tables.setting_rows(["QUEUE"]))
    assert r"TF\_HOST" in "\n".join(tables.setting_rows(["MODEL_SERVER"]))


def test_a_row_of_a_change_has_default_meaning_and_change() -> None:
    text = "\n".join(tables.changes(["REDIS_HOST, REDIS_PORT: All commands go to the master"]))
    assert "``6379``" in text
    assert "Port of Redis, or of its Sentinel" in text
    assert text.count("     - All commands go to the master") == 2


def test_all_metrics_have_a_row() -> None:
    rows = "\n".join(row for metrics in tables.METRICS.values() for row in tables.metric_rows(metrics))
    assert set(re.findall(r"``(redis_consumer_\w+)``", rows)) == {each.name for each in (*worker.ALL, *queues.ALL)}


def test_templates_of_alerts_become_text() -> None:
    rows = "\n".join(tables.alert_rows(tables.rules()))
    assert "{{" not in rows
    assert "Queue … is stuck" in rows


def test_consumers_with_and_without_options_are_listed() -> None:
    text = "\n".join(tables.option_rows())
    assert "job, or operator" in text
    assert [name for name in BUILT_IN if f"``{name}``" not in text] == []


def test_every_attribute_of_the_contract_has_default_and_meaning() -> None:
    public = {name for name in ConsumerContract.__annotations__ if not name.startswith("_")}
    assert set(tables.attributes_of(ConsumerContract)) == public
    text = "\n".join(tables.contract_attributes())
    assert "   * - ``consumer``\n     - required\n" in text
    assert "   * - ``image``\n     - ``example_image()``\n" in text
    assert "garbage.tif" in text


def test_every_test_of_the_contract_is_listed() -> None:
    text = "\n".join(tables.contract_tests())
    assert re.findall(r"``(test_\w+)``", text) == [name for name in vars(ConsumerContract) if name.startswith("test_")]


@pytest.mark.parametrize(
    ("text", "written"), [("`A_B` of a_b*", r"``A_B`` of a\_b\*"), ("``code`` twice", "``code`` twice"), (None, "")]
)
def test_backticks_mean_code(text: str | None, written: str) -> None:
    assert tables.markup(text) == written
