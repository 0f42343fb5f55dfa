"""`submit --wait` says what it waits for, and keeps the results it has, whatever fails meanwhile."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from redis_consumer.client import watch as watching
from redis_consumer.client.watch import watch
from redis_consumer.errors import RedisUnavailable
from redis_consumer.redis import RedisClient
from support.cli import CommandLine
from support.redis_server import RedisServer, free_port


@pytest.fixture
def cli(tmp_path: Path, redis_server: RedisServer, redis_db: redis.Redis) -> CommandLine:
    return CommandLine.make(tmp_path, redis_server.port)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that a test may stop, with data that outlive a restart."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), is_durable=True).start()
    yield server
    server.stop()


def make(cli: CommandLine, *names: str) -> list[Path]:
    for name in names:
        (cli.folder / name).write_bytes(name.encode())
    return [cli.folder / name for name in names]


def lines_until(stream: IO[str] | None, text: str) -> list[str]:
    assert stream is not None
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = stream.readline()
        assert line, f"no {text!r} in {lines}"
        lines.append(line.rstrip())
    return lines


def rows_of(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    output, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return json.loads(output), errors


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(db: Any, job_id: str, **fields: str) -> None:
    db.hset(job_id, mapping={"status": "done", **fields})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_queue_without_workers_is_named_and_an_interrupt_leaves_what_is_known(
    cli: CommandLine, redis_db: Any, number: int
) -> None:
    [path] = make(cli, "plate.zip")
    process = cli.start("submit", path, "--wait", "--json")
    lines = lines_until(process.stderr, "no worker serves queue predict-zip")
    [job_id] = redis_db.lrange("predict-zip", 0, -1)
    assert f"plate.zip: submitted as {job_id}" in lines
    assert "run --serve zip=predict-zip" in lines[-1]
    process.send_signal(number)
    [row], errors = rows_of(process)
    assert (row["job"], row["file"], row["status"], row["result"]) == (job_id, str(path), "new", None)
    assert process.returncode == 130
    assert "no worker serves" not in errors


def test_children_that_no_worker_serves_are_named(cli: CommandLine, redis_db: Any) -> None:
    [path] = make(cli, "plate.zip")
    process = cli.start("submit", path, "--wait")
    lines_until(process.stderr, "submitted as")
    [job_id] = redis_db.lrange("predict-zip", 0, -1)
    redis_db.hset("predict:a.tif:1", "status", "new")
    redis_db.sadd(f"redis-consumer:open:{job_id}", "predict:a.tif:1")
    redis_db.hset(job_id, "status", "waiting")
    assert "predict;" in lines_until(process.stderr, "no worker serves queue predict;")[-1]
    finish(redis_db, job_id)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_a_worker_that_comes_later_is_told(cli: CommandLine) -> None:
    [path] = make(cli, "a.tif")
    process = cli.start("submit", path, "--wait", "--json")
    lines_until(process.stderr, "no worker serves queue predict;")
    worker = cli.start("run")
    try:
        [row], _ = rows_of(process)
    finally:
        worker.terminate()
        worker.communicate()
    assert row["status"] == "done"
    assert Path(row["result"]).exists()


def test_an_outage_of_redis_is_survived(cli: CommandLine, own_server: RedisServer) -> None:
    [path] = make(cli, "a.tif")
    process = cli.start("submit", path, "--wait", "--json", REDIS_PORT=str(own_server.port))
    lines_until(process.stderr, "a.tif: new")
    [job_id] = own_server.client.lrange("predict", 0, -1)
    own_server.stop()
    # Longer than one command waits for Redis.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(8)
    own_server.start()
    finish(own_server.client, job_id, output_url="file:///x.zip")
    [row], _ = rows_of(process)
    assert (row["job"], row["status"], row["output_url"]) == (job_id, "done", "file:///x.zip")
    assert process.returncode == 0


def test_redis_that_is_gone_for_good_leaves_what_is_known(cli: CommandLine, own_server: RedisServer) -> None:
    first, second = make(cli, "a.tif", "b.tif")
    process = cli.start("submit", first, second, "--wait", "--json", "--timeout", "9", REDIS_PORT=str(own_server.port))
    lines_until(process.stderr, "b.tif: new")
    for job_id in own_server.client.lrange("predict", 0, -1):
        if ":a.tif:" in job_id:
            finish(own_server.client, job_id, output_url="file:///x.zip")
    lines_until(process.stderr, "a.tif: done")
    own_server.stop(signal.SIGKILL)
    rows, errors = rows_of(process)
    assert [row["status"] for row in rows] == ["done", "new"]
    assert all(row["job"] for row in rows)
    assert process.returncode == 3
    assert "check REDIS_HOST and REDIS_PORT" in errors


def test_an_outage_without_an_end_ends_the_watch(own_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = RedisClient("127.0.0.1", own_server.port, 0.01, deadline_s=0.1)
    client.hset("predict:a", "status", "new")
    monkeypatch.setattr(watching, "OUTAGE_S", 0.3)
    states = watch(client, ["predict:a"])
    assert next(states).status == "new"
    own_server.stop()
    with pytest.raises(RedisUnavailable):
        list(states)


def test_redis_that_is_away_from_the_start_leaves_a_row_for_each_file(cli: CommandLine) -> None:
    files = make(cli, *(f"{name}.tif" for name in "abcd"))
    result = cli.run("submit", *files, "--json", "--redis", f"127.0.0.1:{free_port()}")
    rows = json.loads(result.stdout)
    assert [Path(row["file"]).name for row in rows] == ["a.tif", "b.tif", "c.tif", "d.tif"]
    assert {row["status"] for row in rows} == {"not submitted"}
    # The command may have reached Redis although no reply came.
    assert [bool(row["job"]) for row in rows] == [True, True, True, False]
    assert "redis-consumer status predict:a.tif:" in rows[0]["reason"]
    assert "not tried" in rows[3]["reason"]
    assert result.returncode == 3


@pytest.mark.parametrize("options", [["--json"], ["--wait", "--json", "--timeout", "0.2"]])
def test_an_upload_that_fails_is_one_row(cli: CommandLine, redis_db: Any, options: list[str]) -> None:
    files = make(cli, "a.tif", "b.tif", "c.tif")
    digest = hashlib.md5(b"b.tif", usedforsecurity=False).hexdigest()
    (cli.folder / "bucket" / "uploads" / f"{digest}.tif" / "in-the-way").mkdir(parents=True)
    result = cli.run("submit", *files, *options)
    good, bad, last = json.loads(result.stdout)
    assert sorted(redis_db.lrange("predict", 0, -1)) == sorted([good["job"], last["job"]])
    assert (bad["job"], bad["status"], Path(bad["file"]).name) == (None, "not submitted", "b.tif")
    assert bad["reason"]
    assert result.returncode in (1, 3)
    assert f"b.tif: not submitted: {bad['reason']}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [["--json"], ["--wait", "--json", "--timeout", "0.2"]])
def test_a_file_that_is_missing_is_one_row(cli: CommandLine, redis_db: Any, options: list[str]) -> None:
    (cli.folder / "plate").mkdir()
    good, last = make(cli, "a.tif", "c.tif")
    result = cli.run("submit", good, "mistyped.tif", "plate", last, *options)
    rows = json.loads(result.stdout)
    assert [Path(row["file"]).name for row in rows] == ["a.tif", "mistyped.tif", "plate", "c.tif"]
    assert sorted(redis_db.lrange("predict", 0, -1)) == sorted([rows[0]["job"], rows[3]["job"]])
    assert [rows[index]["status"] for index in (1, 2)] == ["not submitted"] * 2
    assert "No such file" in rows[1]["reason"]
    assert "is a folder; submit the images in it with --recursive" in rows[2]["reason"]
    assert result.returncode in (1, 3)


def test_a_result_that_cannot_be_downloaded_is_one_row(cli: CommandLine, redis_db: Any) -> None:
    files = make(cli, "a.tif", "b.tif")
    process = cli.start("submit", *files, "--wait", "--json")
    lines_until(process.stderr, "b.tif: submitted as")
    jobs = {job_id.split(":")[1]: job_id for job_id in redis_db.lrange("predict", 0, -1)}
    (cli.folder / "bucket" / "output").mkdir()
    (cli.folder / "bucket" / "output" / "b.zip").write_bytes(b"PK")
    finish(redis_db, jobs["a.tif"], output_file_name="output/gone.zip", output_url="file:///gone.zip")
    finish(redis_db, jobs["b.tif"], output_file_name="output/b.zip", output_url="file:///b.zip")
    (bad, good), errors = rows_of(process)
    assert (bad["status"], bad["result"], bad["output_file_name"]) == ("done", None, "output/gone.zip")
    assert "the result cannot be downloaded: ObjectNotFound" in bad["reason"]
    assert (cli.folder / good["result"]).read_bytes() == b"PK"
    assert process.returncode == 1, errors


def test_time_that_is_up_leaves_what_is_known(cli: CommandLine, redis_db: Any) -> None:
    files = make(cli, "a.tif", "b.tif")
    result = cli.run("submit", *files, "--wait", "--json", "--timeout", "0.2")
    rows = json.loads(result.stdout)
    assert {row["job"] for row in rows} == set(redis_db.lrange("predict", 0, -1))
    assert [row["status"] for row in rows] == ["new", "new"]
    assert "Timed out after 0.2 s. The jobs continue" in result.stderr
    assert result.returncode == 3


def test_keys_are_printed_before_all_files_are_submitted(cli: CommandLine, redis_db: Any) -> None:
    """The second file is a pipe that nobody has written into yet."""
    import os

    [first] = make(cli, "a.tif")
    os.mkfifo(cli.folder / "b.tif")
    process = cli.start("submit", first, cli.folder / "b.tif")
    assert process.stdout is not None
    job_id = process.stdout.readline().strip()
    assert redis_db.lrange("predict", 0, -1) == [job_id]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
