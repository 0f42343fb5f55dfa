"""`redis-consumer run` starts, works and stops as operators expect."""

from __future__ import annotations

import json
import signal
import zipfile
from pathlib import Path

import pytest
import redis

from support.archives import make_zip
from support.cli import CommandLine
from support.redis_server import RedisServer


@pytest.fixture
def cli(tmp_path: Path, redis_server: RedisServer, redis_db: redis.Redis) -> CommandLine:
    (tmp_path / "cells.tif").write_bytes(b"pixels")
    return CommandLine.make(tmp_path, redis_server.port)


def test_burst_works_until_the_queue_is_empty(cli: CommandLine, redis_db: redis.Redis) -> None:
    job_ids = [cli.run("submit", "cells.tif").stdout.strip() for _ in range(2)]
    assert cli.run("run", "--burst").returncode == 0
    assert [redis_db.hget(job_id, "status") for job_id in job_ids] == ["done", "done"]


def test_options_win_over_settings(cli: CommandLine, redis_db: redis.Redis) -> None:
    job_id = cli.run("submit", "cells.tif", "--queue", "other").stdout.strip()
    result = cli.run("run", "--burst", "--queue", "other", "--consumer", "copying:Copier", CONSUMER_TYPE="image")
    assert result.returncode == 0, result.stderr
    assert redis_db.hget(job_id, "status") == "done"


def test_one_worker_serves_several_queues(cli: CommandLine, redis_db: redis.Redis) -> None:
    """In a burst it ends when there is nothing to do in any: an archive comes back after its images."""
    (cli.folder / "plate.zip").write_bytes(make_zip({"x/a.tif": b"pixels", "b.tif": b"more"}))
    job_ids = [cli.run("submit", name).stdout.strip() for name in ("plate.zip", "cells.tif")]
    result = cli.run("run", "--burst", "--serve", "zip=Predict-Zip", "--serve", "copying:Copier=predict")
    assert result.returncode == 0, result.stderr
    assert [redis_db.hget(job_id, "status") for job_id in job_ids] == ["done", "done"]
    with zipfile.ZipFile(cli.folder / "bucket" / str(redis_db.hget(job_ids[0], "output_file_name"))) as archive:
        assert sorted(archive.namelist()) == ["b.tif", "summary.csv", "x/a.tif"]


@pytest.mark.parametrize("name", ["plate.tar", "plate.tar.gz", "plate.TGZ"])
def test_archives_of_other_kinds_go_to_the_queue_of_archives(cli: CommandLine, name: str) -> None:
    (cli.folder / name).write_bytes(b"x")
    assert cli.run("submit", name).stdout.startswith(f"predict-zip:{name}:")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--serve", "predict"], "--serve 'predict': must be TYPE=QUEUE, e.g. image=predict"),
        (["--serve", "image="], "must be TYPE=QUEUE"),
        (["--serve", "zip=a-zip", "--serve", "image=A-Zip"], "--serve: a queue is named twice"),
        (["--serve", "zip=plates"], "ZipFileConsumer: serves queue 'plates-zip', not 'plates'; run it with --serve"),
        (["--serve", "no-such=x"], 'Invalid `consumer_type`: "no-such"'),
    ],
)
def test_what_cannot_be_served_stops_the_start(cli: CommandLine, arguments: list[str], text: str) -> None:
    result = cli.run("run", *arguments)
    assert result.returncode == 2
    assert text in result.stderr


def test_json_logs_name_the_job(cli: CommandLine) -> None:
    job_id = cli.run("submit", "cells.tif").stdout.strip()
    lines = [json.loads(line) for line in cli.run("run", "--burst", LOG_FORMAT="json").stderr.splitlines()]
    assert job_id in {line.get("job_id") for line in lines}
    assert any(line["message"].startswith("Ready") for line in lines)


def test_stop_signal_ends_it_well(cli: CommandLine) -> None:
    worker = cli.start("run", "--log-level", "info")
    assert worker.stderr is not None
    while "Ready" not in (line := worker.stderr.readline()):
        assert line, "the worker ended before it was ready"
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)
    assert worker.returncode == 0
