"""What the pages show exists and runs."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.cli.app import PANELS, load_command
from redis_consumer.consumers import ImageFileConsumer
from support.documents import DOCS, PAGES, PAPERS, ROOT, blocks, commands, extension, name_of

EVERYWHERE = [*PAPERS, *PAGES]


@cache
def verbs() -> dict[str, Any]:
    """The commands of the command line by name."""
    return {name: load_command(name) for names in PANELS.values() for name in names}


def options_of(command: Any) -> set[str]:
    own = {text for each in command.params for text in [*each.opts, *each.secondary_opts]}
    return {*own, "--help", "-h"}


def check_call(call: str) -> None:
    """AssertionError where the command line has no such command, or the command no such option."""
    verb, *words = call.split()
    if verb.startswith("-"):
        assert verb in {"--help", "--version"}, call
        return
    command: Any = verbs().get(verb)
    if hasattr(command, "commands") and words:
        command = command.commands.get(words.pop(0))
    assert command is not None, call
    unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - options_of(command)
    assert unknown == set(), call


@pytest.mark.parametrize("path", EVERYWHERE, ids=name_of)
def test_commands_exist_with_their_options(path: Path) -> None:
    for call in commands(path, "redis-consumer"):
        check_call(call)


@pytest.mark.parametrize("verb", verbs())
def test_examples_of_the_help_exist_with_their_options(verb: str) -> None:
    text = "\n".join(extension("command_help").describe(verb))
    examples = re.findall(r"^   \$ (?:[A-Z_]+=\S+ )*redis-consumer (?!.*\[OPTIONS\])(.+)$", text, re.MULTILINE)
    assert examples
    for call in examples:
        check_call(call)


@pytest.mark.parametrize("path", EVERYWHERE, ids=name_of)
def test_make_verbs_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    assert {call.split()[0].rstrip(",") for call in commands(path, "make")} <= targets


def test_all_commands_are_in_the_reference() -> None:
    page = (DOCS / "reference" / "commands.rst").read_text(encoding="utf-8")
    assert re.findall(r"command-help:: (\S+)", page) == list(verbs())


def test_the_branch_of_get_consumer_works(redis_client: Any) -> None:
    (code,) = [each for each in blocks(DOCS / "CUSTOM_CONSUMER.rst", "python") if "def get_consumer" in each]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    given = {"redis_client": redis_client, "storage_client": None, "queue": "raw"}
    assert isinstance(names["get_consumer"]("Raw", **given), names["RawConsumer"])
    assert isinstance(names["get_consumer"]("image", **given), ImageFileConsumer)


def test_the_first_consumer_is_short() -> None:
    (found,) = (
        each
        for each in ast.parse((DOCS / "examples" / "focus.py").read_text(encoding="utf-8")).body
        if isinstance(each, ast.ClassDef)
    )
    assert (found.end_lineno or 0) - found.lineno < 15


def test_files_named_in_the_pages_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    paths = re.findall(r"``((?:docs|data|training|src|tests)/[\w./-]+)``", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
