from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.reproduce.record import differences, find_record, parse, pinned
from redis_consumer.reproduce.rerun import recorded_settings
from redis_consumer.settings import Settings

RECORD: dict[str, Any] = {
    "format": 1,
    "job": {"id": "predict:a:1", "attempt": 1, "queue": "predict", "input": "uploads/a.tif", "fields": {}},
    "consumer": {"origin": "redis_consumer.consumers.image:ImageFileConsumer"},
    "software": {"version": "1.0", "libraries": {"numpy": "2.0"}},
    "settings": {"NUCLEAR_MODEL": "Nuclei:0", "CUTS": 0, "given": ["NUCLEAR_MODEL"]},
    "models": [{"model": "Nuclei:0", "version_served": 4}],
    "functions": [],
    "inputs": [],
    "outputs": [{"key": "output/a.zip"}],
    "children": [],
}


def parsed(**changes: Any) -> Any:
    return parse("record.json", json.dumps({**RECORD, **changes}).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", json.dumps({**RECORD, "outputs": []}).encode()])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidJob, match=r"record\.json: not a provenance record"):
        parse("record.json", content)


@pytest.mark.parametrize(
    "changes",
    [
        {"models": [{}]},
        {"inputs": ["a"]},
        {"job": {"id": "a"}},
        {"job": {**RECORD["job"], "fields": {"a": 1}}},
        {"job": {**RECORD["job"], "attempt": "x"}},
        {"job": {**RECORD["job"], "id": ["a"]}},
        {"job": {**RECORD["job"], "id": "\ud800"}},
        {"consumer": {"origin": 1}},
        {"options": ["a"]},
        {"settings": {"given": 3}},
        {"settings": {"given": [["CUTS"]]}},
        {"left_out": {"files": "x"}},
        {"models": [{"model": 1}]},
        {"inputs": [{"key": ["a"]}]},
        {"outputs": [{"key": "output/a.zip", "files": [{"name": "a.tif"}]}]},
        {"children": [{"job": "a", "record": 1}]},
    ],
)
def test_a_record_with_a_wrong_part_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="not a provenance record"):
        parsed(**changes)


@pytest.mark.parametrize("levels", [40, 900, 100_000])
def test_a_record_that_goes_deep_is_refused(levels: int) -> None:
    deep = json.dumps(RECORD)[:-1] + ', "model_server": ' + "[" * levels + "]" * levels + "}"
    with pytest.raises(InvalidJob, match="not a provenance record"):
        parse("record.json", deep.encode())


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "record.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidJob, match="it has more than 67108864 bytes"):
        find_record(str(tmp_path / "record.json"), None, lambda _: {})


def test_the_key_of_a_job_may_be_longer_than_a_files_name() -> None:
    with pytest.raises(InvalidJob, match="no such job"):
        find_record(f"predict:{'a' * 251}.tif:1", None, lambda _: {})


def test_a_record_of_another_format_is_refused() -> None:
    with pytest.raises(InvalidJob, match=r"format 2 is not supported \(only 1\)"):
        parsed(format=2)


def test_a_record_without_an_input_can_not_be_run() -> None:
    with pytest.raises(InvalidJob, match="does not name the input"):
        _ = parsed(job={**RECORD["job"], "input": None}).input_key


@pytest.mark.parametrize("version", ["", "0", " 0 ", "-1", "latest"])
def test_the_latest_version_becomes_the_one_that_answered(version: str) -> None:
    fields = {"model_name": "Nuclei", "model_version": version}
    record = pinned(parsed(job={**RECORD["job"], "fields": fields}))
    assert record.data["job"]["fields"]["model_version"] == "4"
    assert record.data["settings"]["NUCLEAR_MODEL"] == "Nuclei:4"
    assert record.data["models"][0]["model"] == "Nuclei:4"


def test_a_label_becomes_the_version_that_answered() -> None:
    fields = {"model_name": "Nuclei", "model_version": "stable"}
    models = [{"model": "Nuclei:stable", "version_served": 4}]
    record = pinned(parsed(job={**RECORD["job"], "fields": fields}, models=models))
    assert record.data["job"]["fields"]["model_version"] == "4"


def test_a_version_that_is_not_known_stays_the_latest() -> None:
    record = pinned(parsed(models=[{"model": "Nuclei:0", "version_served": None}]))
    assert record.data["settings"]["NUCLEAR_MODEL"] == "Nuclei:0"


def test_differences_are_named_by_their_place() -> None:
    other = {**RECORD, "software": {"version": "1.0", "libraries": {"numpy": "2.1", "scipy": "1"}}, "started": "now"}
    assert differences(RECORD, other) == [
        {"field": "software.libraries.numpy", "recorded": "2.0", "now": "2.1"},
        {"field": "software.libraries.scipy", "recorded": None, "now": "1"},
    ]


def test_recorded_settings_win_and_others_stay() -> None:
    own = Settings(cuts=3, max_image_width=10, queue="own", tracking_model="Links:1")
    recorded = {"CUTS": 0, "MAX_IMAGE_WIDTH": 20, "TRACKING_MODEL": "Older:1", "given": ["MAX_IMAGE_WIDTH"]}
    settings = recorded_settings(recorded, own)
    assert (settings.cuts, settings.max_image_width, settings.queue) == (0, 20, "own")
    assert not settings.is_given("TRACKING_MODEL")


def test_a_record_sets_nothing_but_what_decides_pixels() -> None:
    settings = recorded_settings({"STORAGE_BUCKET": "s3://stranger", "given": ["STORAGE_BUCKET"]}, Settings())
    assert settings.storage_bucket == Settings().storage_bucket


def test_a_record_lifts_no_limit_that_protects_the_machine() -> None:
    settings = recorded_settings({"MAX_ARCHIVE_BYTES": 1 << 60, "given": ["MAX_ARCHIVE_BYTES"]}, Settings())
    assert settings.max_archive_bytes == Settings().max_archive_bytes


def test_an_impossible_setting_is_said() -> None:
    with pytest.raises(SettingsError, match="CUTS"):
        recorded_settings({"CUTS": -1, "given": ["CUTS"]}, Settings())
