"""Help, version, wrong usage and our errors give the output and exit codes that scripts rely on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from redis_consumer import __version__, cli
from redis_consumer.cli.app import PANELS, app, load_command
from redis_consumer.cli.output import exit_codes, say
from redis_consumer.errors import InvalidImage, RedisUnavailable, SettingsError

COMMANDS = (
    "run",
    "submit",
    "status",
    "cancel",
    "queues",
    "sweep",
    "prune",
    "settings",
    "doctor",
    "health",
    "demo",
    "new-consumer",
    "dead",
)
DEAD = ("list", "show", "retry", "drop")


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), *(["dead", name] for name in DEAD)])
def test_help_has_examples_and_exit_codes(runner: CliRunner, command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert "Exit codes: 0" in result.output


def test_no_command_shows_the_commands(runner: CliRunner) -> None:
    output = runner.invoke(app, []).output
    assert all(name in output for name in COMMANDS)


def test_the_help_of_a_command_begins_as_the_list_shows_it() -> None:
    """The list is shown without loading the commands."""
    for helps in PANELS.values():
        assert helps == {name: load_command(name).help.partition("\n\n")[0] for name in helps}


def test_every_module_is_in_the_list() -> None:
    """A command that no panel names would be missing from the help and in the documentation."""
    listed = {(panel.lower(), name.replace("-", "_")) for panel, names in PANELS.items() for name in names}
    modules = Path(cli.__file__).parent.glob("*/*.py")
    assert {(path.parent.name, path.stem) for path in modules if "def register(" in path.read_text()} == listed


def test_help_groups_all_commands(runner: CliRunner) -> None:
    output = runner.invoke(app, ["--help"]).output
    places = [output.index(f" {heading} ") for heading in ("Images", "Workers", "Queues", "Authors")]
    assert places == sorted(places)
    assert "Commands ─" not in output


@pytest.mark.parametrize(("panel", "names"), PANELS.items())
def test_a_panel_lists_its_commands_in_order(runner: CliRunner, panel: str, names: dict[str, str]) -> None:
    lines = runner.invoke(app, ["--help"]).output.partition(f"─ {panel} ─")[2].partition("╰")[0].splitlines()
    shown = [line.split()[1] for line in lines if re.match(r"│ [a-z]", line)]
    assert shown == list(names)


def test_version(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"redis-consumer {__version__}\n")


def test_unknown_command_is_wrong_usage(runner: CliRunner) -> None:
    assert runner.invoke(app, ["fly"]).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["run", "--redis", "localhost"],
        ["status", "--redis", "localhost:redis"],
        ["run", "--log-level", "loud"],
        ["doctor", "--bucket", "bucket"],
    ],
)
def test_wrong_usage(runner: CliRunner, arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_wrong_setting_stops_the_start_in_words(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "many")
    result = runner.invoke(app, ["run"])
    assert result.exit_code == 2
    assert "REDIS_PORT = 'many' (environment): must be a whole number from 1 to 65535" in result.stderr


def test_unknown_consumer_stops_the_start_in_words(tmp_path: Path) -> None:
    """In a process of its own: a worker forks. It doesn't wait for Redis, which isn't there."""
    command = [sys.executable, "-m", "redis_consumer", "run", "--consumer", "teapot", "--redis", "127.0.0.1:1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert 'Invalid `consumer_type`: "teapot"' in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(SettingsError("x"), 2), (RedisUnavailable("x"), 3), (InvalidImage("x"), 1), (KeyboardInterrupt(), 130)],
)
def test_errors_become_exit_codes(error: BaseException, code: int) -> None:
    with pytest.raises(typer.Exit) as caught, exit_codes():
        raise error
    assert caught.value.exit_code == code


def test_texts_of_others_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb")
    assert capsys.readouterr().err == "a?[2Jb\n"


def test_module_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "redis_consumer", "--version"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.startswith("redis-consumer ")


def test_command_line_loads_nothing_heavy() -> None:
    heavy = ("numpy", "redis", "grpc", "obstore", "skimage", "scipy", "PIL", "onnxruntime", "pydantic_settings")
    code = f"import sys; import redis_consumer.cli.app; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert output == "[]\n"
