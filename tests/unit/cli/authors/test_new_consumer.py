"""`redis-consumer new-consumer` writes a package that works unchanged, and refuses names that can't be packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.cli.authors import new_consumer
from redis_consumer.settings import Settings
from support.charts import Chart
from support.dockerfile import last, read_dockerfile
from support.documents import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BIN = Path(sys.executable).parent
#: As long as a name may be: its lines are the longest, too.
LONG = "a-counter-of-cells-by-size-and-shape-2"


def new(*words: str) -> Result:
    return CliRunner().invoke(app, ["new-consumer", *words])


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", new_consumer.KINDS)
@pytest.mark.parametrize("name", ["counter", LONG])
def test_its_code_is_clean(tmp_path: Path, kind: str, name: str) -> None:
    assert new(name, "--kind", kind).exit_code == 0
    run(tmp_path / name, str(BIN / "ruff"), "check", "--no-cache")
    run(tmp_path / name, str(BIN / "ruff"), "format", "--check", "--no-cache")


@pytest.mark.parametrize("kind", new_consumer.KINDS)
def test_its_tests_pass(tmp_path: Path, kind: str) -> None:
    new("cell-counter", "--kind", kind)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-o", "pythonpath=src"]
    run(tmp_path / "cell-counter", sys.executable, "-m", "pytest", *options)


@pytest.mark.parametrize("kind", new_consumer.KINDS)
def test_the_class_is_short(tmp_path: Path, kind: str) -> None:
    new("counter", "--kind", kind)
    text = (tmp_path / "counter" / "src" / "counter" / "consumer.py").read_text()
    lines = [line for line in text.partition("class Counter")[2].splitlines() if line.strip()]
    assert len(lines) <= (15 if kind != "files" else 20)


def test_its_name_is_known_by_the_entry_point(tmp_path: Path) -> None:
    new("cell-counter", "--into", "work")
    project = tomllib.loads((tmp_path / "work" / "cell-counter" / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["redis_consumer.consumers"]
    assert points == {"cell-counter": "cell_counter:CellCounter"}


def test_its_image_adds_the_package_and_runs_as_nobody_of_importance(tmp_path: Path) -> None:
    new("cell-counter")
    arguments, stages = read_dockerfile(tmp_path / "cell-counter" / "Dockerfile")
    (stage,) = stages.values()
    assert stage.base == "${BASE}"
    assert set(arguments) == {"BASE"}
    assert last(stage.steps, "USER") == last(read_dockerfile(ROOT / "Dockerfile")[1]["worker"].steps, "USER")
    assert dict(re.findall(r"([A-Z_]+)=(\S+)", last(stage.steps, "ENV"))) == {
        "QUEUE": "cell-counter",
        "CONSUMER_TYPE": "cell-counter",
    }


def test_the_chart_takes_its_values(chart: Chart, tmp_path: Path) -> None:
    new("cell-counter")
    release = chart.render((tmp_path / "cell-counter" / "values.yaml").read_text())
    variables = release.variables("cell-counter-consumer")
    assert (variables["QUEUE"], variables["CONSUMER_TYPE"]) == ("cell-counter", "cell-counter")
    assert set(variables) - {"ORT_DISABLE_TELEMETRY"} <= {name.upper() for name in Settings.model_fields}


def test_the_chart_takes_a_name_that_yaml_has_another_word_for(chart: Chart, tmp_path: Path) -> None:
    new("on")
    variables = chart.render((tmp_path / "on" / "values.yaml").read_text()).variables("on-consumer")
    assert (variables["QUEUE"], variables["CONSUMER_TYPE"]) == ("on", "on")


def test_a_folder_of_the_same_name_elsewhere_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere" / "petri_dish").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert new("petri-dish").exit_code == 0


@pytest.mark.parametrize("name", ["bucket", "dist"])
def test_git_takes_all_files_of_a_package_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    new(name)
    folder = tmp_path / name
    run(folder, "git", "init", "--quiet")
    shown = ["git", "ls-files", "--others", "--exclude-standard"]
    seen = subprocess.run(shown, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    written = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    assert set(seen) == {path.relative_to(folder).as_posix() for path in written}


def test_it_says_what_is_next(tmp_path: Path) -> None:
    said = new("cell-counter").stdout
    assert "Wrote cell-counter: 10 files. Edit src/cell_counter/consumer.py" in said
    assert "export QUEUE=cell-counter CONSUMER_TYPE=cell-counter NUCLEAR_MODEL=NuclearSegmentation:1\n" in said
    assert said.endswith("  redis-consumer run\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Cell_Counter", "use at most 40 lower-case letters, digits and single dashes"),
        ("2-cells", "use at most 40 lower-case letters"),
        ("cells-", "use at most 40 lower-case letters"),
        ("a" * 41, "use at most 40"),
        ("class", "class is already a keyword or module of Python; choose another name, e.g. my-class"),
        ("json", "json is already a keyword or module of Python"),
        ("numpy", "numpy is already a keyword or module of Python"),
        ("redis-consumer", "redis_consumer is already a keyword or module of Python"),
        ("image", "a consumer with this name already exists; choose another name, e.g. my-image"),
        ("test-focus", "pytest would treat the class TestFocus as a test; choose another name, e.g. my-test-focus"),
        ("true", "the class name True is a keyword of Python; choose another name, e.g. my-true"),
        ("none", "the class name None is a keyword of Python"),
        ("job", "the class name Job is already used; choose another name, e.g. my-job"),
        ("consumer-options", "the class name ConsumerOptions is already used"),
        ("path", "the class name Path is already used"),
        ("cells-zip", "names that end in -zip are reserved for queues of archives"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str, words: str) -> None:
    result = new(name)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = new("cell-counter", "--into", "file/within")
    assert result.exit_code == 2
    assert "cell-counter: cannot be written: Not a directory; choose a folder with --into" in result.stderr


def test_the_next_steps_may_be_copied(tmp_path: Path) -> None:
    assert "  cd 'my work/cell-counter'\n" in new("cell-counter", "--into", "my work").stdout


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cell-counter").mkdir()
    result = new("cell-counter")
    assert result.exit_code == 2
    assert "cell-counter: already exists; choose another name, or another folder with --into" in result.stderr
    assert list((tmp_path / "cell-counter").iterdir()) == []


@pytest.mark.parametrize(
    ("direct_url", "step"),
    [
        (None, None),
        ('{"url": "file:///a%20b/clone", "dir_info": {"editable": true}}', "pip install '/a b/clone[onnx,testing]'"),
        ('{"url": "file:///a/x.whl", "archive_info": {}}', "pip install '/a/x.whl[onnx,testing]'"),
        (
            '{"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}}',
            "pip install 'kiosk-redis-consumer[onnx,testing] @ git+https://host/x.git@0a1b'",
        ),
        (
            '{"url": "https://host/x.whl", "archive_info": {}}',
            "pip install 'kiosk-redis-consumer[onnx,testing] @ https://host/x.whl'",
        ),
    ],
)
def test_its_steps_install_this_package_from_where_it_came(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, step: str | None
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            return direct_url if name == "direct_url.json" else None

    monkeypatch.setattr(new_consumer, "distribution", lambda _: Installed())
    output = new("cell-counter").stdout
    steps = [line.strip() for line in output.partition("Next")[2].splitlines()[1:]]
    assert steps[0] == "cd cell-counter"
    assert [each for each in steps if each.startswith("pip ")] == [
        *filter(None, [step]),
        "pip install --editable '.[dev]'",
    ]
    assert steps[-1] == "redis-consumer run"
