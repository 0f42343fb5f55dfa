"""A package of `new-consumer` runs as its README says, command by command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from redis_consumer.cli.authors import new_consumer
from support.documents import ROOT
from support.redis_server import RedisServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The worker of the README has a terminal of its own; here it ends with the script.
SCRIPT = """set -e
{start}
redis-consumer doctor
redis-consumer run & worker=$!
trap 'kill $worker; wait $worker || true' EXIT
{submit}
"""


def install(package: Path) -> Path:
    """Make a package's entry points known, as an editable install does; give the folder for the search path."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    source = package / "src"
    information = source / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    heads = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(heads)
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))
    return source


@pytest.mark.parametrize("kind", new_consumer.KINDS)
def test_the_commands_of_its_readme_do_a_job(
    tmp_path: Path, redis_server: RedisServer, redis_db: object, kind: str
) -> None:
    new_consumer.write_package("cell-counter", kind, tmp_path)
    package = tmp_path / "cell-counter"
    readme = (package / "README.md").read_text().partition("## Run")[2]
    *start, doctor, run = re.findall(r"^\$ (.+)$", readme.partition("## Deploy")[0], re.MULTILINE)
    (submit,) = re.findall(r"`(redis-consumer submit [^`]+)`", readme)
    assert (doctor, run) == ("redis-consumer doctor", "redis-consumer run")
    script = SCRIPT.format(start="\n".join(start), submit=submit.replace("FILE", str(ROOT / "data" / "nuclei.tif")))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {"PATH": path, "PYTHONPATH": str(install(package)), "REDIS_PORT": str(redis_server.port)}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=package,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = (package / "bucket" / "output").rglob("*.zip")
    assert result.stat().st_size
