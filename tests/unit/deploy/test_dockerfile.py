"""The images of the Dockerfile are small and safe, and their commands and health checks exist."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.settings import Settings
from support.dockerfile import command_in, last, read_dockerfile, steps_of
from support.documents import ROOT

ARGUMENTS, STAGES = read_dockerfile(ROOT / "Dockerfile")
TARGETS = ("slim", "onnx", "full")


def test_the_base_is_an_argument() -> None:
    outside = {stage.base for stage in STAGES.values()} - set(STAGES)
    assert outside == {"${BASE_IMAGE}"}
    assert ARGUMENTS["BASE_IMAGE"]


def test_the_default_is_the_full_one() -> None:
    assert list(STAGES)[-1] == "full"
    assert set(TARGETS) <= set(STAGES)


@pytest.mark.parametrize("target", TARGETS)
def test_the_user_is_a_number_and_not_root(target: str) -> None:
    user, _, group = last(steps_of(STAGES, target), "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_installed_but_the_environment(target: str) -> None:
    """No package manager runs in the image, so that neither compilers nor caches get in."""
    steps = steps_of(STAGES, target)
    installers = re.compile(r"\b(apt|apt-get|apk|pip|uv|gcc|make)\b")
    assert [words for instruction, words in steps if instruction == "RUN" and installers.search(words)] == []
    assert [words.split()[1:] for instruction, words in steps if "--from=" in words] == [["/opt/venv", "/opt/venv"]]


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_starts_the_worker_by_itself(target: str) -> None:
    python, script = command_in(last(steps_of(STAGES, target), "CMD"))
    assert (python, script) == ("python", "consume-redis-events.py")
    assert (ROOT / script).is_file()


def test_the_health_check_is_a_command_of_ours() -> None:
    program, *words = command_in(last(steps_of(STAGES, "full"), "HEALTHCHECK"))
    assert program == "redis-consumer"
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_the_health_check_has_an_address() -> None:
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", last(steps_of(STAGES, "full"), "ENV")))
    address = Settings(health_address=variables["HEALTH_ADDRESS"]).health_address
    assert last(steps_of(STAGES, "full"), "EXPOSE") == address.rpartition(":")[2]


def test_targets_add_extras_and_the_full_one_has_all() -> None:
    def extras(target: str) -> list[str]:
        copied = next(words for _, words in STAGES[target].steps if "--from=" in words)
        runs = " ".join(words for _, words in steps_of(STAGES, copied.split()[0].removeprefix("--from=")))
        return re.findall(r"--extra \S+|--all-extras", runs)

    assert extras("slim") == []
    assert extras("onnx") == ["--extra onnx"]
    assert "--all-extras" in extras("full")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [
        source
        for stage in STAGES.values()
        for instruction, words in stage.steps
        if instruction == "COPY" and "--from=" not in words
        for source in [word for word in words.split() if not word.startswith("--")][:-1]
    ]
    assert sorted(copied) == sorted(kept)
    assert [name for name in kept if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("target", TARGETS)
def test_programs_of_the_image_send_no_usage_data(target: str) -> None:
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", last(steps_of(STAGES, target), "ENV")))
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
