"""The older upper-case names of the module work, and assignments win."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from redis_consumer import processing, settings
from redis_consumer.errors import SettingsError


@pytest.fixture(autouse=True)
def _no_assignments() -> Iterator[None]:
    before = set(vars(settings))
    yield
    for name in set(vars(settings)) - before:
        delattr(settings, name)


def test_names_are_read_when_first_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "track")
    assert settings.QUEUE == "track"


def test_import_reads_nothing() -> None:
    code = "import os; os.environ['REDIS_PORT'] = 'wrong'; import redis_consumer.settings"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_assignment_wins() -> None:
    settings.QUEUE = "Mine"
    assert settings.get("QUEUE") == "Mine"
    assert settings.current().queue == "mine"
    assert settings.current().source("QUEUE") == "assignment"


def test_assignment_keeps_the_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "7000")
    settings.QUEUE = "mine"
    assert settings.current().redis_port == 7000
    assert settings.current().source("REDIS_PORT") == "environment"


def test_wrong_assignment_is_refused() -> None:
    settings.REDIS_PORT = -1
    with pytest.raises(SettingsError, match="REDIS_PORT = -1 "):
        settings.current()


def test_settings_in_use_are_those_of_the_process() -> None:
    settings.use(settings.Settings(queue="cells"))
    assert settings.QUEUE == "cells"


def test_models_by_label() -> None:
    settings.CYTOPLASM_MODEL = "Mine:1"
    assert settings.MODEL_CHOICES == {
        0: "NuclearSegmentation:6",
        1: "Mine:1",
        2: "PhaseCytoSegmentation:0",
        3: "TissueNuclei:1",
    }


@pytest.mark.parametrize(
    "change", [lambda table: table.update({1: "Mine:1"}), lambda table: table.__setitem__(1, "Mine:1")]
)
def test_a_model_that_a_script_puts_in_is_kept(change: Callable[[dict[int, str]], None]) -> None:
    change(settings.MODEL_CHOICES)
    assert settings.get("MODEL_CHOICES")[1] == "Mine:1"
    assert settings.MODEL_CHOICES[0] == "NuclearSegmentation:6"


def test_postprocessing_by_label() -> None:
    settings.PHASE_POSTPROCESS = "watershed"
    assert settings.POSTPROCESS_CHOICES == {
        0: "deep_watershed",
        1: "deep_watershed",
        2: "watershed",
        3: "deep_watershed",
    }


def test_secret_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "geheim")
    assert settings.get("REDIS_PASSWORD") == "geheim"


def test_retried_statuses() -> None:
    """A script compares them with the code of an error of grpc."""
    assert grpc.StatusCode.UNAVAILABLE in settings.GRPC_RETRY_STATUSES


def test_the_built_in_functions_are_in_their_table() -> None:
    functions = settings.PROCESSING_FUNCTIONS
    assert functions["pre"]["normalize"] is processing.normalize
    assert {"deepcell", "pixelwise", "watershed"} <= functions["post"].keys()
    functions["post"]["mine"] = len
    assert settings.get("PROCESSING_FUNCTIONS")["post"]["mine"] is len


def test_the_applications_of_a_kind_of_image() -> None:
    assert [each.__name__ for each in settings.APPLICATION_CHOICES.values()] == [
        "NuclearSegmentation", "CytoplasmSegmentation", "CytoplasmSegmentation",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "folder"), [("OUTPUT_DIR", "output"), ("DOWNLOAD_DIR", "download"), ("LOG_DIR", "logs")]
)
def test_folders_are_beside_the_package(name: str, folder: str) -> None:
    assert Path(settings.get(name)) == Path(settings.__file__).parents[2] / folder


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_BUCKET", "cells")
    monkeypatch.setenv("CLOUD_PROVIDER", "AWS")
    assert settings.get("STORAGE_BUCKET_URL") == "s3://cells"
    assert settings.get("MODEL_SERVER_URL") == "tfs://tf-serving:8500"


@pytest.mark.parametrize("name", ["queue", "NO_SUCH_NAME", "__wrapped__"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        settings.get(name)


@pytest.mark.parametrize(("path", "stripped"), [("/a//b/", "a/b"), ("a", "a"), ("///", "")])
def test_strip(path: str, stripped: str) -> None:
    assert settings._strip(path) == stripped
