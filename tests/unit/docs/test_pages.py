"""Does what the pages show exist and run?"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import redis_consumer.consumers
from redis_consumer.cli.app import app
from redis_consumer.consumers import ImageFileConsumer
from support.documents import DOCS, PAGES, PAPERS, ROOT, blocks, commands, name_of

EVERYWHERE = [*PAPERS, *PAGES]
PYTHON = [(page, number) for page in PAGES for number, _ in enumerate(blocks(page, "python"))]


@cache
def verbs() -> dict[str, Any]:
    """The commands of the command line by name."""
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def options_of(command: Any) -> set[str]:
    own = {text for each in command.params for text in [*each.opts, *each.secondary_opts]}
    return {*own, "--help", "-h"}


@pytest.mark.parametrize("path", EVERYWHERE, ids=name_of)
def test_commands_exist_with_their_options(path: Path) -> None:
    for call in commands(path, "redis-consumer"):
        verb, *words = call.split()
        if verb.startswith("-"):
            assert verb in {"--help", "--version"}, call
            continue
        command: Any = verbs().get(verb)
        if hasattr(command, "commands") and words:
            command = command.commands.get(words.pop(0))
        assert command is not None, call
        unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - options_of(command)
        assert unknown == set(), call


@pytest.mark.parametrize("path", EVERYWHERE, ids=name_of)
def test_make_verbs_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    assert {call.split()[0].rstrip(",") for call in commands(path, "make")} <= targets


def test_all_commands_are_in_the_reference() -> None:
    page = (DOCS / "reference" / "commands.rst").read_text(encoding="utf-8")
    assert re.findall(r"command-help:: (\S+)", page) == list(verbs())


@pytest.mark.parametrize(("page", "number"), PYTHON, ids=str)
def test_python_in_the_pages_runs(page: Path, number: int) -> None:
    exec(blocks(page, "python")[number], {"__name__": "example"})


def test_the_branch_of_get_consumer_works(redis_client: Any) -> None:
    (code,) = [each for each in blocks(DOCS / "write-a-consumer.rst", "python") if "def get_consumer" in each]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    given = {"redis_client": redis_client, "storage_client": None, "queue": "raw"}
    assert isinstance(names["get_consumer"]("Raw", **given), names["RawConsumer"])
    assert isinstance(names["get_consumer"]("image", **given), ImageFileConsumer)


def test_files_named_in_the_pages_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    paths = re.findall(r"``((?:docs|data|training|src|tests)/[\w./-]+)``", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ["", "._get_predict_client", ".grpc_image", "._consume"])
def test_the_references_of_the_seed_have_a_target(name: str) -> None:
    found: Any = redis_consumer.consumers.TensorFlowServingConsumer
    assert callable(getattr(found, name.lstrip(".")) if name else found)
    page = (DOCS / "reference" / "consumers.rst").read_text(encoding="utf-8")
    assert ".. module:: redis_consumer.consumers" in page
    assert ".. autoclass:: TensorFlowServingConsumer\n   :private-members: _get_predict_client, _consume" in page


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    html = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(html)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    reference = (html / "reference" / "consumers.html").read_text(encoding="utf-8")
    for name in ("", "._get_predict_client", ".grpc_image", "._consume"):
        assert f'id="redis_consumer.consumers.TensorFlowServingConsumer{name}"' in reference
    assert "MAX_IMAGE_HEIGHT" in (html / "operate.html").read_text(encoding="utf-8")
