"""A slot of a real worker returns the memory that a large job needed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from support.redis_server import RedisServer
from support.worker import environment, is_idle, running_worker, status_is, submit, wait_for

MB = 10**6
MODEL = {"model_name": "NuclearSegmentation", "model_version": "1", "scale": "1"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def peak(slot: psutil.Process) -> int:
    text = Path(f"/proc/{slot.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return 1024 * int(found[1])


def test_a_slot_without_work_holds_what_it_held_before_a_large_job(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    uploads = tmp_path / "bucket/uploads"
    uploads.mkdir(parents=True)
    tifffile.imwrite(uploads / "a.tif", np.zeros((1024, 1024), np.uint16))
    bucket = (tmp_path / "bucket").as_uri()
    settings = environment(redis_server, bucket, WARM_UP="NuclearSegmentation:1", LOG_LEVEL="INFO")
    log = tmp_path / "worker.log"
    with running_worker(tmp_path, settings) as worker:
        wait_for(lambda: is_idle(redis_db), "the slot", tmp_path)
        assert re.search(r"Model NuclearSegmentation:1: one call takes \d+ MB", log.read_text())
        (slot,) = psutil.Process(worker.pid).children()
        idle = slot.memory_info().rss
        Path(f"/proc/{slot.pid}/clear_refs").write_text("5")
        submit(redis_db, original_name="a.tif", **MODEL)
        wait_for(status_is(redis_db, "done"), "the job", tmp_path)
        assert peak(slot) - idle > 100 * MB
        wait_for(lambda: slot.memory_info().rss < idle + 60 * MB, "returned memory", tmp_path)
