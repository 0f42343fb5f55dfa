"""Each result gets its own name."""

from __future__ import annotations

from pathlib import Path

from redis_consumer.client.results import result_names
from redis_consumer.client.submit import Submission


def test_result_is_named_after_its_file() -> None:
    sent = Submission("predict:cells.tif:0", Path("a/cells.tif"))
    assert result_names([sent]) == {"predict:cells.tif:0": "cells-result.zip"}


def test_files_of_one_name_are_told_apart_by_their_jobs() -> None:
    first = Submission("predict:cells.tif:00000000-0000-4000-8000-00000000000a", Path("a/cells.tif"))
    second = Submission("predict:cells.png:00000000-0000-4000-8000-00000000000b", Path("b/cells.png"))
    names = result_names([first, second])
    assert names[first.job_id] == "cells-00000000000a-result.zip"
    assert names[second.job_id] == "cells-00000000000b-result.zip"
