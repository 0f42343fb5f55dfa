"""Packages of `new-consumer` pass their own checks with only their own dependencies installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from redis_consumer.cli.authors import new_consumer
from support.documents import ROOT
from support.redis_server import RedisServer

ENVIRONMENT = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}


def run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uv() -> str:
    own = ROOT / ".tools" / "uv" / "bin" / "uv"
    return shutil.which("uv") or str(own)


@pytest.fixture(scope="module")
def wheels(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this package."""
    folder = tmp_path_factory.mktemp("wheels")
    run(ROOT, uv, "build", "--wheel", "--out-dir", folder)
    return folder


@pytest.mark.slow
def test_the_wheel_has_the_templates(wheels: Path) -> None:
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".tmpl")}
    root = ROOT / "src"
    assert packed == {path.relative_to(root).as_posix() for path in new_consumer.TEMPLATES.rglob("*.tmpl")}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", new_consumer.KINDS)
def test_a_new_package_passes_its_own_checks(uv: str, wheels: Path, tmp_path: Path, kind: str) -> None:
    run(tmp_path, uv, "venv", "env")
    python, programs = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin"
    (wheel,) = wheels.glob("*.whl")
    run(tmp_path, uv, "pip", "install", "--python", python, wheel)
    run(tmp_path, programs / "redis-consumer", "new-consumer", "cell-counter", "--kind", kind)
    package = tmp_path / "cell-counter"
    run(package, uv, "pip", "install", "--python", python, "--find-links", wheels, "--editable", ".[dev]")
    assert "passed" in run(package, programs / "python", "-m", "pytest", "-q")
    run(package, programs / "ruff", "check")
    run(package, programs / "ruff", "format", "--check")
    run(package, programs / "mypy")
    assert "cell-counter" in run(package, programs / "redis-consumer", "consumers")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", new_consumer.KINDS)
def test_the_printed_steps_work_where_nothing_else_is_installed(
    uv: str, wheels: Path, tmp_path: Path, redis_server: RedisServer, redis_db: object, kind: str
) -> None:
    """As they are printed, in one shell; the last one is a worker, which does a job and is ended."""
    run(tmp_path, uv, "venv", "env")
    (wheel,) = wheels.glob("*.whl")
    run(tmp_path, uv, "pip", "install", "--python", tmp_path / "env" / "bin" / "python", wheel)
    printed = run(tmp_path, tmp_path / "env" / "bin" / "redis-consumer", "new-consumer", "cell-counter", "--kind", kind)
    steps = [line.strip() for line in printed.partition("Next")[2].splitlines()[1:]]
    assert steps[-1] == "redis-consumer run"
    lines = ["set -e", *steps[:-1], f"{steps[-1]} & worker=$!", "trap 'kill $worker; wait $worker || true' EXIT"]
    lines += [f"redis-consumer submit {ROOT / 'data' / 'nuclei.tif'} --wait --timeout 300"]
    # A person's shell knows nothing of the environment that runs this test.
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin", str(Path(sys.base_prefix) / "bin")])
    own = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**own, "PATH": path, "REDIS_PORT": str(redis_server.port)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert list((tmp_path / "cell-counter" / "bucket" / "output").rglob("*.zip"))
