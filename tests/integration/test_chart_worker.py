"""A pod of the Helm chart works: its variables, command, files and probes, with a real worker in its container."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from support import onnx_models
from support.charts import Chart, Release
from support.redis_server import RedisServer, free_port
from support.worker import ROOT, environment, running_worker, wait_for

EXAMPLES = ROOT / "docs" / "examples"
JOB = "raw:cells.npy:1"
NAME = "raw-consumer"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    (folder / "uploads").mkdir(parents=True)
    np.save(folder / "uploads" / "cells.npy", np.full((8, 9, 1), 3, np.float32))
    onnx_models.save(folder / "models", "Scaling", 1, onnx_models.scaling(2.0))
    return folder


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


@pytest.fixture
def release(chart: Chart) -> Release:
    """The example of the documentation with its class, as two files of one's own would make it."""
    values = yaml.safe_load((EXAMPLES / "kubernetes" / "raw.yaml").read_text(encoding="utf-8"))
    values["code"] = {"my_consumer.py": (EXAMPLES / "my_consumer.py").read_text(encoding="utf-8")}
    return chart.render({**values, "probes": {"port": free_port()}}, name="raw")


def variables_of(release: Release, server: RedisServer, bucket: Path, code: Path) -> dict[str, str]:
    """A container's variables, but for the addresses and folders of this machine."""
    here = environment(server, bucket.as_uri(), PYTHONPATH=str(code))
    given = release.variables(NAME)
    assert given["PYTHONPATH"] == "/code"
    return {**here, **given, **{name: here[name] for name in given.keys() & here.keys()}}


def probes_of(release: Release) -> list[str]:
    """Addresses that a cluster asks."""
    container = release.container(NAME)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    asked = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    return [f"http://127.0.0.1:{ports[each['port']]}{each['path']}" for each in asked]


def test_a_consumer_of_ones_own_by_a_values_file(
    release: Release, redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    for name, text in release.one("ConfigMap")["data"].items():
        (code / name).write_text(text, encoding="utf-8")

    with running_worker(tmp_path, variables_of(release, redis_server, bucket, code)) as worker:
        for url in probes_of(release):
            wait_for(partial(is_ok, url), f"an answer of {url}", tmp_path)
        fields = {"status": "new", "model_name": "Scaling", "model_version": "1"}
        redis_db.hset(JOB, mapping={**fields, "input_file_name": "uploads/cells.npy"})
        redis_db.lpush("raw", JOB)
        wait_for(lambda: redis_db.hget(JOB, "status") == "done", "the result", tmp_path)

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(release.pod(NAME)["terminationGracePeriodSeconds"]) == 0
