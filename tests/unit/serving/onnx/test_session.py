from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.serving.onnx import session
from redis_consumer.serving.onnx.session import arena_bytes_for, errors_in_words, providers_for, threads_for
from support.documents import ROOT

MODEL = ModelId("Nuclei", 3)
OWNER = ROOT / "src" / "redis_consumer" / "serving" / "onnx" / "session.py"
SWITCH = 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"'
FOLDERS = ("src", "tests", "benchmarks", "simulation", "tools", "training", "examples", "docs")
IMPORT = re.compile(
    r"^\s*(?:import|from)\s+onnxruntime\b|import_module\(.onnxruntime|__import__\(.onnxruntime", re.MULTILINE
)


def sources() -> list[Path]:
    """Programs of the repository, and pages, whose blocks are programs."""
    found = [
        path for folder in FOLDERS for ending in ("py", "rst", "md") for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    return [*found, *ROOT.glob("*.py"), ROOT / "README.md"]


def test_only_one_module_of_the_package_imports_the_runtime() -> None:
    package = [path for path in sources() if path.is_relative_to(ROOT / "src")]
    assert [path for path in package if IMPORT.search(path.read_text(encoding="utf-8"))] == [OWNER]


def test_telemetry_is_off_before_each_import() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in sources()}
    importing = {path: match.start() for path, text in texts.items() if (match := IMPORT.search(text))}
    assert len(importing) > 5
    assert [path for path, start in importing.items() if SWITCH not in texts[path][:start]] == []


def test_telemetry_is_off_for_plug_ins_too() -> None:
    """They may import the runtime before the package does."""
    program = "import os, redis_consumer; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_telemetry_is_off_where_the_environment_was_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    session.load_runtime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(("slots", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (9, 1)])
def test_slots_share_the_cpus(monkeypatch: pytest.MonkeyPatch, slots: int, threads: int) -> None:
    monkeypatch.setattr(session, "usable_cpus", lambda: 8)
    assert threads_for(slots) == threads


def test_slots_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "usable_bytes", lambda: 2**30)
    assert arena_bytes_for(1) == 3 * 2**28
    assert arena_bytes_for(4) * 4 == arena_bytes_for(1)


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (["CPUExecutionProvider"], ["CPU"]),
        (["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], ["CUDA", "CPU"]),
        (["OpenVINOExecutionProvider", "CPUExecutionProvider"], ["OpenVINO", "CPU"]),
        (["AzureExecutionProvider", "CPUExecutionProvider"], ["CPU"]),
    ],
)
def test_the_best_device_comes_first_and_the_cpu_last(available: list[str], chosen: list[str]) -> None:
    names = [name.removesuffix("ExecutionProvider") for name, _ in providers_for(available, 2)]
    assert names == chosen


def test_other_kernels_keep_to_the_threads_too() -> None:
    (_, options), _ = providers_for(["OpenVINOExecutionProvider", "CPUExecutionProvider"], 2)
    assert options["num_of_threads"] == "2"


class Fail(Exception):
    """Stands for an error of the runtime; the library makes such classes itself."""


class NoSuchFile(Fail):
    """Likewise."""


@pytest.fixture(autouse=True)
def _of_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Fail, NoSuchFile):
        monkeypatch.setattr(kind, "__module__", "onnxruntime.capi")


def test_an_error_of_the_runtime_is_a_mismatch_that_names_the_model() -> None:
    expected = "Nuclei:3: onnxruntime can't run it: bad node; check the file"
    with pytest.raises(ModelMismatch, match=expected) as caught, errors_in_words(MODEL):
        raise Fail("bad\n node")
    assert caught.value.model == "Nuclei:3"


def test_a_file_that_went_away_is_not_found() -> None:
    with pytest.raises(ModelNotFound), errors_in_words(MODEL):
        raise NoSuchFile("gone")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), errors_in_words(MODEL):
        raise ZeroDivisionError
