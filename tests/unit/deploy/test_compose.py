"""compose.yaml fits its format, the Dockerfile, the settings and the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.consumers.registry import BUILT_IN
from redis_consumer.settings import Settings
from support.dockerfile import read_dockerfile
from support.documents import ROOT

TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "compose.env.example").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKER: dict[str, Any] = SERVICES["worker"]
#: ``${NAME:-default}`` and ``${NAME:?what to do}`` of the file; ``$${NAME}`` is the container's shell's.
INTERPOLATED = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):[-?]([^}]*)\}", TEXT))
EXAMPLES = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


def words_of(service: str) -> list[str]:
    command: list[str] = SERVICES[service]["command"]
    return command


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("service", ["worker", "server"])
def test_variables_are_settings_with_values_that_they_may_have(service: str) -> None:
    environment: dict[str, str] = SERVICES[service]["environment"]
    given: dict[str, Any] = {
        name: INTERPOLATED.get(name, "") if "${" in text else text for name, text in environment.items()
    }
    given.pop("ORT_DISABLE_TELEMETRY", "")
    assert set(given) <= {name.upper() for name in Settings.model_fields}
    Settings(**{name: text for name, text in given.items() if name != "REDIS_PASSWORD"})


def test_the_worker_serves_consumers_that_exist() -> None:
    program, *words = words_of("worker")
    assert program == "redis-consumer"
    assert CliRunner().invoke(app, [words[0], "--help"]).exit_code == 0
    served = dict(word.split("=") for word in words if "=" in word)
    assert {"image", "zip", "tracking"} == set(served) <= set(BUILT_IN)
    assert served["zip"] == f"{served['image']}-zip"
    assert served["image"] == Settings().segmentation_queue


def test_the_workers_image_is_built_from_a_target_that_exists() -> None:
    arguments, stages = read_dockerfile(ROOT / "Dockerfile")
    assert INTERPOLATED["WORKER_TARGET"] in stages
    assert INTERPOLATED["BASE_IMAGE"] == arguments["BASE_IMAGE"]
    assert set(WORKER["build"]["args"]) == set(arguments)


def test_the_health_check_of_the_worker_exists() -> None:
    _, program, *words = WORKER["healthcheck"]["test"]
    assert program == "redis-consumer"
    result = CliRunner().invoke(app, words)
    assert "HEALTH_ADDRESS is empty" in result.stderr, "it asks at HEALTH_ADDRESS, which the worker's environment sets"
    assert WORKER["environment"]["HEALTH_ADDRESS"]


def test_the_server_starts_and_is_open_to_this_machine_only() -> None:
    server = SERVICES["server"]
    program, command, *options = words_of("server")
    assert program == "redis-consumer"
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    (published,) = server["ports"]
    inner = published.rpartition(":")[2]
    assert options[options.index("--port") + 1] == inner
    assert server["environment"]["HEALTH_ADDRESS"].endswith(f":{inner}")
    assert INTERPOLATED["SERVER_ADDRESS"] == "127.0.0.1"


def test_the_server_reads_what_workers_read_and_keeps_its_files() -> None:
    server = SERVICES["server"]
    for name in ("REDIS_HOST", "REDIS_PASSWORD", "STORAGE_BUCKET", "MODEL_SERVER", "NUCLEAR_MODEL"):
        assert server["environment"][name] == WORKER["environment"][name]
    assert server["image"] == WORKER["image"]
    folder = server["environment"]["WEB_FOLDER"]
    assert f"web:{folder}" in server["volumes"]
    assert f"install -d -o worker -g worker /bucket {folder}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_running_jobs_may_end_before_they_are_killed() -> None:
    assert WORKER["stop_grace_period"] == "${WORKER_STOP_GRACE:-40s}"
    assert seconds(INTERPOLATED["WORKER_STOP_GRACE"]) > float(EXAMPLES["GRACE_PERIOD"]) + 5
    assert float(EXAMPLES["GRACE_PERIOD"]) == Settings().grace_period


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_bounded_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_redis_keeps_its_jobs_and_asks_for_a_password() -> None:
    script = words_of("redis")[-1]
    assert all(word in script for word in ("appendonly yes", "noeviction", 'requirepass "$$password"'))
    assert "ports" not in SERVICES["redis"]
    assert WORKER["environment"]["REDIS_PASSWORD"] == SERVICES["redis"]["environment"]["REDIS_PASSWORD"]


def test_the_workers_bucket_is_a_volume() -> None:
    folder = INTERPOLATED["STORAGE_BUCKET"].removeprefix("file://")
    assert f"bucket:{folder}" in WORKER["volumes"]
    assert f"bucket:{folder}:ro" in SERVICES["tf-serving"]["volumes"]
    assert "bucket" in COMPOSE["volumes"]


def test_the_address_of_tensorflow_serving_is_that_of_its_service() -> None:
    (address,) = set(re.findall(r"tfs://([\w.:-]+)", TEXT))
    host, _, port = address.partition(":")
    assert f"--port={port}" in words_of(host)
    assert SERVICES[host]["profiles"] == [host]


def test_the_example_names_every_variable_with_its_default() -> None:
    assert set(EXAMPLES) == {*INTERPOLATED, "COMPOSE_PROFILES", "GRACE_PERIOD"}
    assert {name: text for name, text in EXAMPLES.items() if text and name != "GRACE_PERIOD"} == {
        name: text for name, text in INTERPOLATED.items() if name != "REDIS_PASSWORD"
    }


@pytest.mark.parametrize(
    "name", [name for name in EXAMPLES if name in {each.upper() for each in Settings.model_fields}]
)
def test_settings_of_the_example_are_no_secrets_by_default(name: str) -> None:
    assert (name == "REDIS_PASSWORD") == (EXAMPLES[name] == "")
