"""The page on a job's fields: all fields, statuses and orders of axes that the code knows."""

from __future__ import annotations

import re

from redis_consumer import job
from support.documents import DOCS, ROOT

TEXT = (DOCS / "job-fields.rst").read_text(encoding="utf-8")
NAMES = {name for row in re.findall(r"^   \* - (``.*)$", TEXT, re.MULTILINE) for name in re.findall(r"``(.+?)``", row)}


def test_every_field_that_the_code_knows_is_on_the_page() -> None:
    assert {*job.EMPTY_FIELDS, *job._GIVEN_FIELDS, *job.OWN_FIELDS} - NAMES == set()


def test_every_field_of_the_page_is_in_the_code() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    known = {*job.EMPTY_FIELDS, *job._GIVEN_FIELDS, *job.OWN_FIELDS}
    assert {name for name in NAMES - known if not re.search(rf"\b{name}\b", source)} == set()


def test_every_status_is_on_the_page() -> None:
    assert [status.value for status in job.JobStatus if f"``{status.value}``" not in TEXT] == []


def test_every_order_of_axes_is_on_the_page() -> None:
    assert [order for order in job.DIMENSION_ORDERS if f"``{order}``" not in TEXT] == []
