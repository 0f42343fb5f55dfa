"""The steps of the page on model servers run, and the settings on related pages are correct."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.job import ModelId
from redis_consumer.serving import open_model_server
from redis_consumer.serving.oip.server import OpenInferenceServer
from redis_consumer.settings import Settings
from support.documents import DOCS, ROOT, blocks
from support.open_inference import ENVIRONMENTS
from support.redis_server import RedisServer

PAGE = DOCS / "serving.rst"
MODEL = ModelId("Foreground", 1)


def steps(word: str) -> list[str]:
    """The commands of the first block of the console that contains a word."""
    block = next(each for each in blocks(PAGE, "console") if word in each)
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def run(lines: list[str], folder: Path, **variables: str) -> str:
    """Run commands as a reader does who has activated the environment in a clone of the project."""
    for name in ("docs", "data"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "\n".join(["set -e", *lines])
    environment = {**os.environ, **variables, "PATH": path}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_steps_for_onnx_run(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    run(steps("redis-consumer run"), tmp_path, REDIS_PORT=str(redis_server.port))
    (job,) = (redis_db.hgetall(key) for key in redis_db.scan_iter("predict:*", _type="hash"))
    assert (job["status"], job["model_name"]) == ("done", MODEL.name), job.get("reason")
    assert (tmp_path / "bucket" / job["output_file_name"]).is_file()


@pytest.mark.slow
def test_the_steps_for_mlserver_run(tmp_path: Path) -> None:
    python = ENVIRONMENTS / "mlserver" / "bin" / "python"
    if not python.exists():
        pytest.skip("mlserver isn't installed; `make model-servers` brings it")
    *prepare, start = steps("mlserver start")
    run(prepare, tmp_path)
    folder = tmp_path / start.removeprefix("mlserver start ")
    image = np.random.default_rng(7).random((1, 1024, 1024, 1), np.float32)
    local = open_model_server("onnx://", find_model=lambda _: folder / "model.onnx")
    with mlserver(python, folder) as address:
        remote = OpenInferenceServer(address, timeout_s=60, backoff_s=0.5, max_retries=20)
        assert remote.metadata(MODEL) == local.metadata(MODEL)
        expected = local.predict(MODEL, {"image": image})["prediction"]
        prediction = remote.predict(MODEL, {"image": image})["prediction"]
        np.testing.assert_allclose(prediction, expected, rtol=0, atol=1e-5, strict=True)
        remote.close()
    local.close()


@contextmanager
def mlserver(python: Path, folder: Path) -> Iterator[str]:
    """Serve a folder of the page's example, on free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    path = folder / "settings.json"
    chosen = dict(zip(("grpc_port", "http_port", "metrics_port"), ports, strict=True))
    path.write_text(json.dumps({**json.loads(path.read_text()), **chosen}))
    for each in sockets:
        each.close()
    program = "from mlserver.cli import main; main()"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    with subprocess.Popen([python, "-c", program, "start", folder], env=kept) as process:
        try:
            yield f"127.0.0.1:{ports[0]}"
        finally:
            process.kill()


def test_settings_in_the_tuning_table_exist_and_have_these_defaults() -> None:
    table = (DOCS / "tuning.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - ((?:``[A-Z_]+``(?:, )?)+)(?: = (\S+( MiB)?))?$", table, re.MULTILINE)
    assert len(rows) > 8
    for names, value, mebibytes in rows:
        for name in re.findall(r"``([A-Z_]+)``", names):
            if name == "GLIBC_TUNABLES":
                continue
            default = Settings.model_fields[name.lower()].default
            number = str(int(value.split()[0]) << 20) if mebibytes else value
            assert not value or str(default) == number, name


def test_every_setting_of_the_model_server_is_on_a_page_about_it() -> None:
    text = "".join((DOCS / f"{name}.rst").read_text(encoding="utf-8") for name in ("serving", "model-calls", "tuning"))
    wanted = [name.upper() for name in Settings.model_fields if name.startswith(("model_server", "grpc_", "tf_m"))]
    assert [name for name in [*wanted, "MAX_CALL_BYTES", "CALLS_IN_FLIGHT"] if f"``{name}" not in text] == []
