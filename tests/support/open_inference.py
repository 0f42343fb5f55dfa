"""Start servers of the Open Inference Protocol: the stand-in, a real MLServer, a real Triton."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUPPORT = TESTS / "support"
# Environments of their own, made by `make model-servers`: these servers want other libraries than we do.
ENVIRONMENTS = TESTS.parent / ".tools" / "model-servers"


@contextmanager
def serve_open_inference(folder: Path, *options: str) -> Iterator[str]:
    """Serve ``<folder>/<name>/<version>/model.onnx`` by the stand-in; gives ``host:port``.

    Args:
        folder: the models.
        options: of `support.open_inference_server`, e.g. ``"--reply", "typed"``.
    """
    command = [sys.executable, "-m", "support.open_inference_server", "--models", str(folder), *options]
    with _started(command, {**os.environ, "PYTHONPATH": str(TESTS)}) as address:
        yield address


@contextmanager
def serve_by(kind: str, folder: Path) -> Iterator[str]:
    """Serve the same models by a real server, ``mlserver`` or ``triton``; gives ``host:port``, or skips the test."""
    python = ENVIRONMENTS / kind / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{kind} isn't installed; `make model-servers` brings it")
    # Of this process's environment, what Python and its libraries are told would mislead another Python.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    with _started([str(python), str(SUPPORT / f"{kind}_models.py"), str(folder)], kept) as address:
        yield address


@contextmanager
def _started(command: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        word, _, port = process.stdout.readline().strip().partition(" ")
        if word == "skip":
            pytest.skip(port)
        assert word == "ready", "the model server didn't start; its error is above"
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(timeout=20)
        process.stdout.close()
