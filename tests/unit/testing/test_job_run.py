"""A run reports the outcome of its job."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.job import Job
from redis_consumer.testing import JobRun


def run(result: bytes = b"", **fields: str) -> JobRun:
    return JobRun(Job("predict:a.tif:1", fields), ("new", "done"), Outcome.SETTLED, result)


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def test_files_are_those_of_the_zip() -> None:
    assert run(zipped(table=b"a,b", folder__table=b"c")).files == {"table": b"a,b", "folder/table": b"c"}
    assert run(zipped(table=b"a,b")).outputs == {}


def test_another_result_is_a_file_of_its_own() -> None:
    assert run(b"{}", output_file_name="output/table.json").files == {"table.json": b"{}"}
    assert run().files == {}


def test_images_are_outputs_whatever_their_pixels_are() -> None:
    image, file = np.array([[1, np.nan], [np.inf, 1e300]]), io.BytesIO()
    tifffile.imwrite(file, image)
    np.testing.assert_array_equal(run(zipped(cells=file.getvalue())).outputs["cells"], image)


def test_timings_are_numbers() -> None:
    assert run(total_time="0.25", upload_time="1.5,2.5", other="3").timings == {"total_time": 0.25}


def test_files_are_saved(tmp_path: Path) -> None:
    (path,) = run(zipped(folder__table=b"c")).save(tmp_path)
    assert path == tmp_path / "folder" / "table"
    assert path.read_bytes() == b"c"


def test_no_file_is_saved_outside(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is outside"):
        run(zipped(**{"..__table": b"c"})).save(tmp_path)
