"""A worker sends nothing to anybody but its own services, and writes nowhere but in its own folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures_serving import serve_models
from fixtures_storage import BucketForTests
from support import movies, ome_zarr
from support.collector import collector
from support.redis_server import RedisServer, free_port
from support.tracing import HAS_STRACE, deeds_in, has_ended, traced
from support.worker import ROOT, environment, wait_for

IMAGE = ROOT / "data" / "nuclei.tif"
SERVE = ["--serve", "image=predict", "--serve", "zip=predict-zip", "--serve", "tracking=track"]
needs_strace = pytest.mark.skipif(not HAS_STRACE, reason="strace isn't installed")

#: Starts a program where there is no network but loopback.
ON_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""


class Home:
    """Folders of a process's own, which show what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / name for name in ("home", "temporary", "work")}
        for each in self.folders.values():
            each.mkdir()
        self.work = self.folders["work"]
        self.temporary = self.folders["temporary"]

    def variables(self, given: dict[str, str]) -> dict[str, str]:
        """Those of the process: of the machine's, only what a service gets."""
        kept = {name: text for name, text in given.items() if not name.startswith(("COVERAGE_", "ORT_"))}
        return {
            **kept,
            "HOME": str(self.folders["home"]),
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def left(self) -> list[str]:
        """What is in the folders."""
        return [str(path) for folder in self.folders.values() for path in folder.rglob("*")]

    def strangers(self, written: set[str], *allowed: Path) -> list[str]:
        """Of what was written, all that is neither a worker's folder, nor below `allowed`, nor no file."""
        ours = [f"{self.temporary}/redis-consumer-worker-", *(f"{path}/" for path in allowed)]
        probe = re.compile(rf"{re.escape(str(self.temporary))}/[a-z0-9_]{{8}}")  # Python tries the folder
        return [
            path
            for path in written
            if not path.startswith((*ours, "/dev/null", "/proc/self/")) and not probe.fullmatch(path)
        ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(params=["file_bucket", "s3_bucket", "gcs_bucket"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> BucketForTests:
    """A bucket with an input of each kind."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    pixels = tifffile.imread(IMAGE)[:200, :160]
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(inputs / "nuclei.png")
    ome_zarr.zipped(ome_zarr.write(tmp_path / "nuclei.zarr", pixels, "yx"), inputs / "nuclei.zarr.zip")
    shutil.make_archive(str(inputs / "plate"), "zip", inputs, "nuclei.png")
    movies.write_tiff(movies.small_movie(), inputs / "movie.tif")
    shutil.copy(IMAGE, inputs / "nuclei.tif")
    bucket: BucketForTests = request.getfixturevalue(request.param)
    for path in inputs.iterdir():
        bucket.open().upload_file(path, f"uploads/{path.name}")
    return bucket


@contextmanager
def traced_process(command: list[str], home: Home, log: Path, variables: dict[str, str]) -> Iterator[None]:
    """Run a program of ours under strace until the block ends, and wait for strace."""
    program = traced([sys.executable, "-m", "redis_consumer", *command], log)
    with (log.parent / "worker.log").open("wb") as output:
        process = subprocess.Popen(program, cwd=home.work, env=home.variables(variables), stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(90) == 0
        wait_for(lambda: has_ended(log, process.pid), "the end of strace")


def ended(db: Any, key: str, folder: Path) -> None:
    wait_for(lambda: db.hget(key, "status") in ("done", "failed"), key, folder)
    assert db.hget(key, "status") == "done", db.hget(key, "reason")


@needs_strace
def test_the_watcher_sees_what_a_library_would_do(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    deeds_of_a_library = "import os, socket; os.mkdir('cache'); socket.getaddrinfo('name.invalid', 80)"
    program = traced([sys.executable, "-c", deeds_of_a_library], log)
    # Without the variables by which coverage measures other processes, and writes its own files.
    variables = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    with subprocess.Popen(program, cwd=home.work, env=variables, stderr=subprocess.DEVNULL) as process:
        process.wait(60)
    wait_for(lambda: has_ended(log, process.pid), "the end of strace")
    deeds = deeds_in(log, home.work)
    assert deeds.lookups
    assert "/etc/hosts" in deeds.resolver_files
    assert home.strangers(deeds.written) == [str(home.work / "cache")]
    assert home.left() == [str(home.work / "cache")]


@needs_strace
def test_jobs_of_all_kinds_look_up_no_name_and_write_nowhere_else(
    bucket: BucketForTests, home: Home, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    jobs = {"nuclei.tif": "predict", "nuclei.png": "predict", "nuclei.zarr.zip": "predict"}
    jobs |= {"plate.zip": "predict-zip", "movie.tif": "track"}
    log = tmp_path / "strace.log"
    with collector() as collected:
        variables = {
            **environment(redis_server, bucket.url),
            **bucket.environment,
            "NUCLEAR_MODEL": "NuclearSegmentation:1",
            "HEALTH_ADDRESS": f"127.0.0.1:{free_port()}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collected.url,
        }
        with traced_process(["run", *SERVE], home, log, variables):
            for name, queue in jobs.items():
                fields = {"status": "new", "original_name": name, "input_file_name": f"uploads/{name}", "scale": "0.5"}
                redis_db.hset(f"{queue}:{name}", mapping=fields)
                redis_db.lpush(queue, f"{queue}:{name}")
            for name, queue in jobs.items():
                ended(redis_db, f"{queue}:{name}", tmp_path)
    deeds = deeds_in(log, home.work)
    assert (deeds.lookups, deeds.resolver_files, deeds.addresses) == (set(), set(), set())
    assert home.strangers(deeds.written, tmp_path / "bucket") == []
    assert home.left() == []


@needs_strace
def test_commands_and_a_model_server_neither(
    home: Home, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", tifffile.imread(IMAGE)[:200, :160])
    (tmp_path / "bucket").mkdir()
    logs = [tmp_path / f"{name}.log" for name in ("run", "doctor", "submit")]
    with serve_models(ROOT / "src" / "redis_consumer" / "models") as address:
        variables = environment(redis_server, (tmp_path / "bucket").as_uri(), MODEL_SERVER=f"tfs://{address}")
        variables["NUCLEAR_MODEL"] = "NuclearSegmentation:1"
        submit = ["submit", str(tmp_path / "cells.tif"), "--scale", "0.5", "--wait"]
        with traced_process(["run"], home, logs[0], variables):
            for command, log in zip((["doctor"], submit), logs[1:], strict=True):
                program = traced([sys.executable, "-m", "redis_consumer", *command], log)
                with subprocess.Popen(program, cwd=home.work, env=home.variables(variables)) as process:
                    assert process.wait(60) == 0
                wait_for(partial(has_ended, log, process.pid), "the end of strace")
    for log in logs:
        deeds = deeds_in(log, home.work)
        assert (log.name, deeds.lookups, deeds.addresses) == (log.name, set(), set())
        assert home.strangers(deeds.written, tmp_path / "bucket", home.work) == []
    assert {Path(path).name for path in home.left()} == {"results", "cells-result.zip"}


def test_a_job_needs_no_network_and_leaves_nothing(home: Home) -> None:
    """The whole of it, Redis, worker and model, in a network namespace."""
    isolated = ["unshare", "--map-root-user", "--net"]
    if sys.platform != "linux" or subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine or user makes no network namespaces")
    demo = [sys.executable, "-m", "redis_consumer", "demo", "--image", str(IMAGE), "--output", "results"]
    done = subprocess.run(
        [*isolated, sys.executable, "-c", ON_LOOPBACK, *demo],
        cwd=home.work,
        env=home.variables(dict(os.environ)),
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "Found" in done.stdout
    results = str(home.work / "results")
    assert [path for path in home.left() if not path.startswith(results)] == []
