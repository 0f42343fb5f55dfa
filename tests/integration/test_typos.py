"""A mistyped name is reported together with the intended one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from redis_consumer import settings, testing
from redis_consumer.job import DIMENSION_ORDERS, Job, ModelId, misspelt_fields
from redis_consumer.settings import misspelt_variables
from support.cli import CommandLine
from support.documents import ROOT
from support.redis_server import RedisServer


@pytest.fixture
def cli(tmp_path: Path, redis_server: RedisServer, redis_db: redis.Redis) -> CommandLine:
    return CommandLine.make(tmp_path, redis_server.port)


# Settings.


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CONCURENCY", "CONCURRENCY"),
        ("MAX_ATTEMPT", "MAX_ATTEMPTS"),
        ("STORAGE_BUKET", "STORAGE_BUCKET"),
        ("REDIS_HOTS", "REDIS_HOST"),
        ("GRPC_TIME_OUT", "GRPC_TIMEOUT"),
    ],
)
def test_a_mistyped_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    monkeypatch.setenv(name, "4")
    assert misspelt_variables() == [f"{name} (environment) is no setting; did you mean {near}?"]


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "QUEUES", "REDIS_PORT_6379_TCP", "REDIS_SERVICE_HOST", "TF_SERVING_PORT", "LOG", "HOSTTYPE"],
)
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "4")
    assert misspelt_variables() == []


def test_every_setting_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.Settings.model_fields:
        monkeypatch.setenv(name.upper(), "1")
    assert misspelt_variables() == []


@pytest.mark.parametrize(
    ("file", "text"), [(".env", "CONCURENCY=4\n"), ("settings.ini", "[settings]\nCONCURENCY = 4\n")]
)
def test_a_mistyped_variable_of_a_file_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    (problem,) = misspelt_variables()
    assert problem.startswith("CONCURENCY (")
    assert problem.endswith("did you mean CONCURRENCY?")


def test_start_and_doctor_name_it(cli: CommandLine) -> None:
    ran = cli.run("run", "--burst", CONCURENCY="4")
    assert ran.stderr.count("CONCURENCY (environment) is no setting; did you mean CONCURRENCY?") == 1
    findings = json.loads(cli.run("doctor", "--json", CONCURENCY="4").stdout)
    assert [each["outcome"] for each in findings if "CONCURENCY" in each["text"]] == ["warning"]


def test_a_mistyped_option_is_named(cli: CommandLine) -> None:
    source = (
        "from copying import Copier\nfrom redis_consumer.consumers import ConsumerOptions\n\n\nclass Own(Copier):\n"
    )
    (cli.folder / "own.py").write_text(f"{source}    class Options(ConsumerOptions):\n        cell_model: str = 'a'\n")
    ran = cli.run("run", "--burst", CONSUMER_TYPE="own:Own", CELL_MODLE="b")
    assert "CELL_MODLE (environment) is no setting; did you mean CELL_MODEL?" in ran.stderr


# Fields of a job.


@pytest.mark.parametrize(
    ("field", "near"),
    [
        ("modle_name", "model_name"),
        ("channel", "channels"),
        ("Scale", "scale"),
        ("dimensionorder", "dimension_order"),
        ("postproces_function", "postprocess_function"),
        ("min_aera", "min_area"),
    ],
)
def test_a_mistyped_field_is_found(field: str, near: str) -> None:
    assert misspelt_fields([field, "status", "my_own", "total_time", near], ["min_area"]) == {field: near}


def test_a_job_tells_of_a_mistyped_field(caplog: pytest.LogCaptureFixture) -> None:
    run = testing.run("image", testing.example_image(), modle_version="2", scale=1)
    assert run.status == "done", run.reason
    assert run.fields["warning"] == "field 'modle_version' is unknown; did you mean model_version?"
    assert caplog.text.count("did you mean model_version?") == 1
    assert "warning" not in testing.run("image", testing.example_image(), scale=1, my_own="1").fields


def test_submit_and_status_tell_of_it(cli: CommandLine, redis_db: Any) -> None:
    (cli.folder / "a.tif").write_bytes(b"a")
    sent = cli.run("submit", cli.folder / "a.tif", "--field", "chanels=0")
    assert "field 'chanels' is unknown; did you mean channels?" in sent.stderr
    assert cli.run("run", "--burst").returncode == 0
    shown = cli.run("status", sent.stdout.strip()).stdout
    assert "field 'chanels' is unknown; did you mean channels?" in shown


# Queues.


def test_a_queue_that_nobody_serves_is_shown_whatever_its_name(cli: CommandLine, redis_db: Any) -> None:
    for number in range(3):
        redis_db.hset(f"pridict:a.tif:{number}", "status", "new")
        redis_db.lpush("pridict", f"pridict:a.tif:{number}")
    redis_db.lpush("celery", "no job of ours")
    redis_db.hset("old:a.tif:1", "status", "new")
    redis_db.lpush("old", "old:a.tif:1")
    redis_db.lpush("processing-old:pod-1", "old:a.tif:0")  # of an older worker
    for command in ("queues", "status"):
        assert json.loads(cli.run(command, "--json").stdout)["unserved"] == {"pridict": 3}
        assert "Jobs wait in queues that no worker serves: pridict (3)" in cli.run(command).stdout
    worker = cli.start("run", QUEUE="pridict")
    try:
        assert worker.stderr is not None
        while redis_db.llen("pridict"):
            assert worker.poll() is None
        assert "no worker serves" not in cli.run("queues").stdout
    finally:
        worker.terminate()
        worker.communicate()


def test_a_user_of_redis_who_may_not_look_gets_the_queues_all_the_same(cli: CommandLine, redis_db: Any) -> None:
    redis_db.execute_command("ACL", "SETUSER", "default", "-scan")
    try:
        result = cli.run("queues", "--json")
    finally:
        redis_db.execute_command("ACL", "SETUSER", "default", "+scan")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["unserved"] == {}
    assert "Note: cannot look for queues that no worker serves" in result.stderr


# Scripts.


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise KeyError(consumer_type)", "KeyError: 'copying:Copier'"),
        ("return undefined_name", "NameError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("return None", "gives None"),
        ("return registry.get_consumer_class(consumer_type)", "gives <class"),
        ("return redis_consumer.consumers.Consumer(**kwargs)", "has no method _consume(self, redis_hash)"),
        (
            "return type('Mine', (redis_consumer.consumers.Consumer,), {'_consume': lambda self: 'done'})(**kwargs)",
            "its _consume takes (self)",
        ),
    ],
)
def test_a_script_whose_get_consumer_fails_ends_with_code_2(cli: CommandLine, body: str, problem: str) -> None:
    script = (ROOT / "consume-redis-events.py").read_text(encoding="utf-8")
    wrong = script.replace("return registry.make_consumer(consumer_type, **kwargs)", body)
    assert wrong != script
    (cli.folder / "script.py").write_text(wrong)
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=cli.folder,
        env=cli._environment({"CONCURRENCY": "2"}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    (line, *_) = [line for line in ran.stderr.splitlines() if "get_consumer" in line]
    assert problem in line


# Axes and models.


@pytest.mark.parametrize("order", ["ZXX", "BATCH", "XYQ"])
def test_unknown_axes_are_refused_with_those_that_are_known(order: str) -> None:
    run = testing.run("image", np.ones((8, 8, 1), np.float32), model=lambda batch: batch, dimension_order=order)
    assert run.status == "failed"
    assert f"field dimension_order: '{order}' can't be read; give one of {' '.join(DIMENSION_ORDERS)}" in run.reason


def test_submit_refuses_unknown_axes(cli: CommandLine, redis_db: Any) -> None:
    (cli.folder / "a.tif").write_bytes(b"a")
    result = cli.run("submit", cli.folder / "a.tif", "--dimension-order", "ZXX")
    assert result.returncode == 2
    assert "BXYC" in result.stderr
    assert redis_db.keys() == []


@pytest.mark.parametrize("version", ["latest", "Latest", "LATEST", "0", ""])
def test_latest_is_a_version_of_a_model(version: str) -> None:
    assert ModelId.of("Nuclei", version) == ModelId("Nuclei", 0)


@pytest.mark.parametrize("model", ["NuclearSegmentation:latest", "NuclearSegmentation:stable", "NuclearSegmentation:1"])
def test_a_label_is_accepted_wherever_a_model_is_named(
    cli: CommandLine, redis_db: Any, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("NUCLEAR_MODEL", model)
    assert settings.load_settings().nuclear_model == model
    (cli.folder / "a.tif").write_bytes(b"a")
    job_id = cli.run("submit", cli.folder / "a.tif", "--model", model).stdout.strip()
    assert Job(job_id, redis_db.hgetall(job_id)).model == ModelId.parse(model)


@pytest.mark.parametrize("model", ["NuclearSegmentation", "NuclearSegmentation:", ":1", "Nuclei:1.5.2:x y"])
def test_what_names_no_version_is_refused(cli: CommandLine, model: str) -> None:
    (cli.folder / "a.tif").write_bytes(b"a")
    result = cli.run("submit", cli.folder / "a.tif", "--model", model)
    assert result.returncode == 2
    assert "NAME:VERSION" in result.stderr


def test_a_job_of_the_latest_version_gets_the_functions_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from redis_consumer.consumers import defaults

    monkeypatch.setenv("NUCLEAR_MODEL", "Nuclei:latest")
    settings.use(None)
    assert defaults.model_choices().functions_of(ModelId.parse("Nuclei:latest"))[0] == ("histogram_normalization",)


def test_messages_hold_no_names_of_our_own_functions(tmp_path: Path) -> None:
    from redis_consumer.errors import RedisUnavailable
    from redis_consumer.redis import RedisClient
    from support.redis_server import free_port

    client = RedisClient("127.0.0.1", free_port(), 0.01, deadline_s=0.05)
    with pytest.raises(RedisUnavailable) as caught:
        client.batch(("PING",))
    assert "BATCH" not in str(caught.value)
