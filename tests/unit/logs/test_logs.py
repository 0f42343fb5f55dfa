"""Each log line has time, level, source and job, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from redis_consumer.logs import HANDLER_NAME, NOISY, initialize_logger, job_context
from redis_consumer.text import MASK, mask_secrets


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, noisy = root.level, {name: logging.getLogger(name).level for name in NOISY}
    yield
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)
    for handler in [known for known in root.handlers if known.get_name() == HANDLER_NAME]:
        root.removeHandler(handler)
    logging.captureWarnings(False)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line(stream: io.StringIO) -> None:
    initialize_logger("info", "json", stream=stream)
    logging.getLogger("a.b").warning("It is %d", 3, extra={"tiles": 7})
    [line] = lines(stream)
    assert (line["level"], line["logger"], line["message"], line["tiles"]) == ("WARNING", "a.b", "It is 3", 7)


def test_what_a_caller_adds_spoils_no_line(stream: io.StringIO) -> None:
    initialize_logger("info", "json", secrets=['pa"s\\w', "7"], stream=stream)
    extra = {"level": 3, "size": {(1, 2): float("nan")}, "deep": [{"password": 'pa"s\\w'}], "tiles": 17}
    logging.getLogger("a").info("x", extra=extra)
    [line] = lines(stream)
    told = {name: line[name] for name in extra}
    assert told == {"level": "INFO", "size": {"(1, 2)": "nan"}, "deep": [{"password": MASK}], "tiles": 17}


def test_time_is_utc_with_zone(stream: io.StringIO) -> None:
    initialize_logger("info", "json", stream=stream)
    logging.getLogger("a").info("x")
    moment = datetime.fromisoformat(lines(stream)[0]["ts"].replace("Z", "+00:00"))
    assert moment.utcoffset() == timedelta(0)


def test_exception_is_one_json_line(stream: io.StringIO) -> None:
    initialize_logger("info", "json", stream=stream)
    try:
        raise ValueError("no\nluck")
    except ValueError:
        logging.getLogger("a").exception("Bad")
    [line] = lines(stream)
    assert "ValueError: no" in line["exception"]


def test_lines_within_a_job_carry_it(stream: io.StringIO) -> None:
    initialize_logger("info", "json", stream=stream)
    with job_context(job_id="predict:a:1", attempt=2):
        logging.getLogger("a").info("in")
    logging.getLogger("a").info("out")
    inside, outside = lines(stream)
    assert (inside["job_id"], inside["attempt"]) == ("predict:a:1", 2)
    assert "job_id" not in outside


def test_text_line_names_the_job(stream: io.StringIO) -> None:
    initialize_logger("INFO", "text", stream=stream)
    with job_context(job_id="predict:a:1", attempt=2):
        logging.getLogger("a").info("Hello")
    assert stream.getvalue().rstrip().endswith("INFO    a [predict:a:1 attempt 2]: Hello")


def test_line_break_in_a_name_makes_no_line_of_its_own(stream: io.StringIO) -> None:
    initialize_logger("INFO", "text", stream=stream)
    logging.getLogger("a").info("File %s", "x\n2026-01-01T00:00:00Z ERROR forged")
    assert stream.getvalue().splitlines()[1].startswith("    ")


def test_level_holds(stream: io.StringIO) -> None:
    initialize_logger("warning", stream=stream)
    logging.getLogger("a").info("quiet")
    assert stream.getvalue() == ""


def test_noisy_libraries_are_kept_to_warnings(stream: io.StringIO) -> None:
    initialize_logger("debug", stream=stream)
    logging.getLogger("PIL.PngImagePlugin").debug("chunk")
    assert stream.getvalue() == ""


def test_last_call_holds(stream: io.StringIO) -> None:
    initialize_logger("info", stream=io.StringIO())
    initialize_logger("info", stream=stream)
    logging.getLogger("a").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="xml"):
        initialize_logger("info", "xml")


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        initialize_logger("loud")


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_secrets_are_masked_everywhere(stream: io.StringIO, fmt: str) -> None:
    initialize_logger("info", fmt, secrets=["geheim", ""], stream=stream)
    try:
        raise ValueError("geheim")
    except ValueError:
        logging.getLogger("a").exception("Key geheim", extra={"deep": {"key": "geheim"}})
    assert "geheim" not in stream.getvalue()
    assert MASK in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://b/k?X-Amz-Signature=0a1b&x=1", f"https://b/k?X-Amz-Signature={MASK}&x=1"),
        ("https://b/k?X-Goog-Signature=0a1b", f"https://b/k?X-Goog-Signature={MASK}"),
        ("redis://user:pw@host:6379", f"redis://user:{MASK}@host:6379"),
        ("redis at host:6379 and a@b", "redis at host:6379 and a@b"),
    ],
)
def test_addresses_lose_their_secrets(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
