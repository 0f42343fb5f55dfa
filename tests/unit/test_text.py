from __future__ import annotations

import csv
import json
import logging
import sys
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from redis_consumer.consumers.gathering import Summary
from redis_consumer.consumers.options import ConsumerOptions, options_for, per_job
from redis_consumer.errors import InvalidJob, describe, reason_of
from redis_consumer.job import Job, ModelId
from redis_consumer.logs import initialize_logger, job_context
from redis_consumer.queue import JobQueue
from redis_consumer.segmentation.results import write_analysis
from redis_consumer.settings import Settings
from redis_consumer.text import (
    MAX_FOLDERS,
    MAX_LINE,
    MAX_PART_BYTES,
    MAX_TEXT,
    cell,
    check_numbers,
    cut,
    decimal,
    printable,
    quoted,
    result_stem,
    shown_name,
    whole,
)
from redis_consumer.traces import carried

HUGE = "x" * 10_000_000
#: What int() or float() takes, or another program may, and is no plain number.
ODD = [
    "1_0", "\u0661\u0662", "\uff11\uff12", "\u0967", "1\uff12", "inf", "-inf", "nan", "NaN", "infinity", "0x10", "0b1",
    "1 0", "1,5", "1" * 10_000,
    "1e999", "--1", "", " ", "+", ".", "e5", "1e", "\u00b2", "1\x00", "\u00bd", "\u22121", "1\u066b5", "true",
]  # fmt: skip
FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "  =1+1", "\t=1+1", "\r=1+1", "\n=1", "=cmd|'/C calc'!A0",
    "\uff1d1+1", "\uff0b1+1", "\uff0d1+1", "\uff20a", "\u3000=1",
    "\u00a0=1", "\u200b=1", "\ufeff=1", "\ufe661", "\ufe621", "-x.tif", "\x00=1", "\x7f=1", " \u3000\uff1d1",
]  # fmt: skip


def test_a_cut_text_keeps_both_ends() -> None:
    text = cut(f"field scale: '{HUGE}' can't be read; give a number")
    assert len(text) <= MAX_LINE
    assert text.startswith("field scale: 'xxx")
    assert text.endswith("xxx' can't be read; give a number")
    assert "characters left out" in text


@given(st.text(max_size=300), st.integers(min_value=40, max_value=200))
def test_a_cut_text_is_never_too_long(text: str, most: int) -> None:
    assert len(cut(text, most)) <= most
    assert cut(text, most) == text or len(text) > most


def test_a_quoted_value_is_short() -> None:
    assert quoted("a\n") == "'a\\n'"
    assert len(quoted(HUGE)) < 60


@pytest.mark.parametrize("text", ODD)
def test_only_plain_digits_are_numbers(text: str) -> None:
    for read in (whole, decimal):
        with pytest.raises(ValueError, match="is no"):
            read(text)


@given(st.integers(min_value=-(10**19) + 1, max_value=10**19 - 1))
def test_whole_numbers_are_read(number: int) -> None:
    assert whole(f" {number} ") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_each_number_that_python_writes_is_read(number: float) -> None:
    assert decimal(str(number)) == number


@pytest.mark.parametrize("text", ["1.5", "1e3"])
def test_a_fraction_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        whole(text)


@pytest.mark.parametrize("name", ["scale", "label", "cuts", "field_size", "total_jobs"])
@pytest.mark.parametrize("text", [text for text in ODD if text.strip()])
def test_fields_of_a_job_take_plain_numbers_only(name: str, text: str) -> None:
    with pytest.raises(InvalidJob, match=f"field {name}: .*; give ") as caught:
        getattr(Job("predict:a:1", {name: text}), name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("version", ["1_0", "\u0661\u0662", "\uff11", "1" * 10_000, "0x10", "1 0", "-+1", "1.5"])
def test_versions_of_models_are_plain_numbers(version: str) -> None:
    with pytest.raises(InvalidJob, match="model_version"):
        ModelId.of("Nuclei", version)


@pytest.mark.parametrize("text", ["1_0", "\u0661\u0662", "\uff11\uff12", "1" * 10_000, "inf", "nan", "1 0"])
@pytest.mark.parametrize("name", ["REDIS_PORT", "GRACE_PERIOD", "MAX_DOWNLOAD_BYTES", "MIN_SCALE", "CONCURRENCY"])
def test_settings_take_plain_numbers_only(name: str, text: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: text})


@pytest.mark.parametrize("name", ["NUCLEAR_MODEL", "HEALTH_ADDRESS"])
def test_numbers_within_settings_are_plain_too(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: "Nuclei:\uff11"})


class Options(ConsumerOptions):
    size: Annotated[int, per_job] = 1
    share: Annotated[float | None, per_job, Field(gt=0)] = None
    sides: Annotated[tuple[int, ...], per_job] = ()
    name: Annotated[str, per_job] = ""


@pytest.mark.parametrize("name", ["size", "share", "sides"])
@pytest.mark.parametrize("text", ["1_0", "\uff11\uff12", "1" * 10_000, "inf", "nan"])
def test_options_take_plain_numbers_only(name: str, text: str) -> None:
    with pytest.raises(InvalidJob, match=f"field {name}: ") as caught:
        options_for(Options, {}, Job("predict:a:1", {name: text}))
    assert len(str(caught.value)) < 300


def test_options_that_are_texts_take_all() -> None:
    given = {"size": "5", "share": "0.5", "sides": "1,2", "name": "1_0"}
    options = options_for(Options, {}, Job("predict:a:1", given))
    assert (options.size, options.share, options.sides, options.name) == (5, 0.5, (1, 2), "1_0")
    check_numbers(int, "many")  # which no number is made of: pydantic says what it wants


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    safe = cell(text)
    assert safe[0] in "'?"
    assert all(character.isprintable() or character.isspace() for character in safe)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in safe)


@pytest.mark.parametrize("text", ["12", "-0.5", "+3", "1e-5", "nuclei 1.tif", "a=b", "プレート.tif", "'=1", ""])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


@given(st.text(max_size=40))
def test_a_cell_has_no_control_characters(text: str) -> None:
    assert not any(ord(character) < 32 for character in cell(text))


def test_a_table_holds_no_formulas_of_others(tmp_path: Path) -> None:
    with Summary(tmp_path / "s.csv", 2) as summary:
        fields = {
            "original_name": "=1+1.tif",
            "status": "done",
            "objects": "@a",
            "total_time": "-1+1",
            "upload_time": HUGE,
        }
        summary.add_done(Job("predict:1", fields))
        summary.add_failed(Job("predict:2"), HUGE, "a;=1+1.tif")
        summary.add_skipped("\t=x", "\r\n-y")
    text = (tmp_path / "s.csv").read_text(encoding="utf-8")
    assert '"a;=1+1.tif"' in text  # in quotes, it is one cell where semicolons separate them
    _, *rows = csv.reader(StringIO(text))
    assert rows[0] == ["'=1+1.tif", "done", "", "'@a", "'-1+1"]
    assert [len(value) <= MAX_LINE for row in rows for value in row] == [True] * 15
    assert rows[2][:3] == ["?=x", "skipped", "??-y"]
    assert all(len(str(value)) < 70_000 for value in summary.fields().values())
    assert "upload_time" not in summary.fields()


def test_values_of_an_analysis_are_safe_and_numbers_stay_numbers(tmp_path: Path) -> None:
    write_analysis({"note": "=1+1", "count": -5, "mean": 0.25}, tmp_path, "cells.tif")
    rows = (tmp_path / "cells_values.csv").read_text(encoding="utf-8").splitlines()
    assert rows == ['"name","value"', '"note","\'=1+1"', '"count",-5', '"mean",0.25']


@pytest.mark.parametrize("kind", [InvalidJob, KeyError, ValueError])
def test_reasons_are_short(kind: type[Exception]) -> None:
    for text in (describe(kind(HUGE)), reason_of(kind(HUGE)).splitlines()[-1]):
        assert len(text) <= MAX_LINE
        assert text.startswith(kind.__name__)


def test_a_recursion_without_end_has_a_short_reason() -> None:
    def call(depth: int) -> int:
        return call(depth + 1) + 1

    with pytest.raises(RecursionError) as caught:
        call(0)
    reason = reason_of(caught.value)
    assert len(reason) <= MAX_TEXT
    assert reason.splitlines()[-1].startswith("RecursionError: ")


def test_a_reason_of_a_plug_ins_own_is_short() -> None:
    stamped = JobQueue(None, "predict", "pod-1").stamp({"reason": HUGE, "labels": HUGE})
    assert len(stamped["reason"]) <= MAX_TEXT
    assert stamped["labels"] == HUGE


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_are_short(form: str) -> None:
    stream = StringIO()
    initialize_logger("INFO", form, stream=stream)
    try:
        with job_context(job_id=HUGE):
            try:
                raise ValueError(HUGE)
            except ValueError:
                logging.getLogger("a").exception("Failed %s", HUGE, extra={"key": HUGE, "deep": {HUGE: [HUGE]}})
    finally:
        logging.getLogger().handlers[:] = [
            each for each in logging.getLogger().handlers if each.get_name() != "redis-consumer"
        ]
    line = stream.getvalue()
    assert len(line) < 50_000
    if form == "json":
        assert json.loads(line)["message"].startswith("Failed xxx")
    assert "characters left out" in line


def test_what_people_see_is_short() -> None:
    assert len(printable(HUGE)) <= MAX_TEXT
    assert sys.getsizeof(printable("a\x1b[31m")) < 100


def test_a_trace_context_that_is_too_long_is_none() -> None:
    fields = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": HUGE}
    assert carried(fields) == {"traceparent": fields["traceparent"]}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("HeLa.tif", "HeLa"),
        ("plate 1/well A,3/HeLa cell.ome.tif", "plate 1/well A,3/HeLa cell.ome"),
        ("/absolute/a.tif", "absolute/a"),
        ("../../etc/passwd", "etc/passwd"),
        ("..tif", "image"),
        ("...", "image"),
        ("", "image"),
        ("a\0b\n.tif", "ab"),
        ("caf\udce9.tif", "caf"),
    ],
)
def test_names_stay_what_they_are_where_they_may(name: str, stem: str) -> None:
    assert result_stem(name) == PurePosixPath(stem)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("12:30 well*?.tif", "12_30 well__"),
        ('a<b>c"d|e/f.tif', "a_b_c_d_e/f"),
        ("plate 1. /a .tif", "plate 1/a"),
        ("con/NUL.tif", "con_/NUL_"),
        ("aux.1/com1.tif", "aux_.1/com1_"),
        ("console/lpt10.tif", "console/lpt10"),
    ],
)
def test_names_unpack_on_windows(name: str, stem: str) -> None:
    assert result_stem(name) == PurePosixPath(stem)


@given(st.lists(st.sampled_from([*'<>:"|?*. ab', "con", "lpt1", "nul"]), max_size=8).map("".join))
def test_any_name_is_one_on_windows(name: str) -> None:
    part = result_stem(f"{name}.tif").name
    assert not set(part) & set('<>:"|?*')
    assert not part.endswith((" ", "."))
    assert part.split(".")[0].strip().lower() not in {"con", "lpt1", "nul"}


def test_a_long_name_is_cut_between_characters() -> None:
    assert result_stem("日" * 300 + ".tif").name == "日" * (MAX_PART_BYTES // 3)


@pytest.mark.parametrize(("name", "shown"), [("a/b\0.tif", "b.tif"), ("", "image"), ("x" * 300, "x" * 200)])
def test_messages_show_a_name_of_one_line(name: str, shown: str) -> None:
    assert shown_name(name) == shown


@given(st.text())
def test_any_name_gives_a_short_path_inside_the_result(name: str) -> None:
    stem = result_stem(name)
    assert not stem.is_absolute()
    assert len(stem.parts) <= MAX_FOLDERS + 1
    for part in stem.parts:
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= MAX_PART_BYTES
