from __future__ import annotations

import csv
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from redis_consumer.consumers.gathering import COLUMNS, MAX_FIELD_BYTES, MAX_LISTED, Summary
from redis_consumer.job import Job
from redis_consumer.segmentation.results import count_objects


def child(number: int, **fields: str) -> Job:
    return Job(f"predict:im{number}.tif:{number}", {"original_name": f"im{number}.tif", **fields})


def test_the_table_has_a_row_for_each(tmp_path: Path) -> None:
    with Summary(tmp_path / "s.csv", 3) as summary:
        summary.add_done(child(1, objects="12", total_time="0.5"))
        summary.add_failed(child(2), 'InvalidImage: im2.tif: is "odd", really', "im2.tif")
        summary.add_skipped("notes\n.txt", "is no image")
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(COLUMNS),
        ["im1.tif", "done", "", "12", "0.5"],
        ["im2.tif", "failed", 'InvalidImage: im2.tif: is "odd", really', "", ""],
        ["notes?.txt", "skipped", "is no image", "", ""],
    ]


def test_the_fields_are_the_contracts(tmp_path: Path) -> None:
    with Summary(tmp_path / "s.csv", 3) as summary:
        summary.add_done(child(1, upload_time="1.5", predict_retries="0"))
        summary.add_done(child(2, upload_time="2.5", predict_retries="3"))
        summary.add_failed(child(3), "x & y = z", "im3.tif")
        fields = summary.fields()
    assert fields["upload_time"] == "1.5,2.5"
    assert fields["predict_retries"] == "0,3"
    assert fields["children:done"] == "predict:im1.tif:1,predict:im2.tif:2"
    assert fields["children:failed"] == "predict:im3.tif:3"
    assert parse_qs(fields["failures"]) == {"predict:im3.tif:3": ["x & y = z"]}
    assert fields["total_jobs"] == 3
    assert "download_time" not in fields


def test_no_failure_is_an_empty_text(tmp_path: Path) -> None:
    with Summary(tmp_path / "s.csv", 1) as summary:
        summary.add_done(child(1))
        assert summary.fields()["failures"] == ""


def test_many_children_do_not_make_long_fields(tmp_path: Path) -> None:
    total = 5000
    with Summary(tmp_path / "s.csv", 2 * total) as summary:
        for number in range(total):
            summary.add_done(child(number, total_time=str(number)))
            summary.add_failed(child(number), "r" * 1000, f"im{number}.tif")
        fields = summary.fields()
    assert all(len(str(text)) <= MAX_FIELD_BYTES + 100 for text in fields.values())
    times = [int(text) for text in fields["total_time"].split(",")]
    assert len(times) <= MAX_LISTED
    assert max(times) > 0.9 * total
    shown = parse_qs(fields["failures"])
    (more,) = shown.pop("more")
    assert more == f"{total - len(shown)} others, see summary.csv"
    assert fields["children:done"] == ""


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [((1, 2, 2, 1), "int32", {"objects": 2}), ((1, 2, 2, 1), "uint64", {"objects": 2}),
     ((2, 1, 2, 1), "uint16", {"objects": 3}), ((1, 2, 2, 1), "float32", {}), ((2, 2), "int32", {})],
)  # fmt: skip
def test_objects_are_counted_frame_by_frame(shape: tuple[int, ...], dtype: str, expected: dict[str, int]) -> None:
    import numpy as np

    labels = np.array([0, 2, 2, 7], dtype).reshape(shape)
    assert count_objects(labels) == expected
    assert count_objects([labels]) == expected


def test_negative_values_are_no_labels() -> None:
    import numpy as np

    assert count_objects(np.full((1, 1, 1, 1), -1)) == {}
