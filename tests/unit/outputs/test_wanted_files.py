"""The job's field ``outputs``."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job
from redis_consumer.segmentation.cell_outputs import CELL_OUTPUTS, wanted_outputs


def job(outputs: str) -> Job:
    return Job("predict:a:1", {"outputs": outputs})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        (" , ", []),
        ("rois,Table, rois", ["rois", "table"]),
        ("all", list(CELL_OUTPUTS)),
        ("table,ALL", list(CELL_OUTPUTS)),
    ],
)
def test_names_are_read(text: str, names: list[str]) -> None:
    assert wanted_outputs(job(text)) == names


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        InvalidJob, match="field outputs: 'mask, x' is unknown; give some of labels, ome, rois, .* or all"
    ):
        wanted_outputs(job("table,mask,x"))


def test_without_its_library_parquet_is_refused_and_all_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "pyarrow" else importlib.util.spec_from_loader(name, None)

    monkeypatch.setattr("redis_consumer.segmentation.cell_outputs.find_spec", find)
    with pytest.raises(InvalidJob, match=r"parquet needs a library .* ask for table, or install .*\[parquet\]"):
        wanted_outputs(job("parquet"))
    assert wanted_outputs(job("all")) == [name for name in CELL_OUTPUTS if name != "parquet"]
