"""Every block of code in README and pages is checked: run, parsed, or marked with the reason why not."""

from __future__ import annotations

import configparser
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from code_blocks import Block, blocks_in, pages
from redis_consumer.settings import Settings
from support.console import run_page, steps_of
from support.documents import ROOT, extension, name_of
from support.redis_server import RedisServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BLOCKS = [block for page in pages() for block in blocks_in(page)]
RUN = [block for block in BLOCKS if not (block.not_run or block.run_by or block.source)]
CONSOLES = sorted({block.path for block in RUN if block.language == "console"})
#: Pages of a new user and of an author, whose commands run in each test run; all others in `make test-all`.
FIRST_PAGES = {"README.md", "first-consumer.rst", "CUSTOM_CONSUMER.rst", "write-a-consumer.rst"}
#: Variables on the pages that others read.
FOREIGN = {"BASE_IMAGE", "COMPOSE_PROFILES", "GLIBC_TUNABLES", "PYTHONPATH", "REDIS_CONSUMER_CONFIG", "SERVER_ADDRESS"}
_VARIABLE = re.compile(r"(?:^|[\s;'\"])([A-Z][A-Z0-9_]+)(?:=|: )", re.MULTILINE)
_INSTRUCTIONS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR"
)


def check_console(block: Block) -> None:
    assert list(steps_of(block)), "no command after a $"


def check_ini(block: Block) -> None:
    head = "" if block.text.startswith("[") else "[settings]\n"  # a file .env has no sections
    configparser.ConfigParser().read_string(head + block.text)


def check_toml(block: Block) -> None:
    table = tomllib.loads(block.text)
    groups = table.get("project", {}).get("entry-points", {})
    assert [name for name in groups if not name.startswith(("redis_consumer.", "pytest11"))] == []


def check_yaml(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text)) != [None]


def check_dockerfile(block: Block) -> None:
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    assert [word for word in words if word not in _INSTRUCTIONS.split()] == []


def check_diff(block: Block) -> None:
    assert {line[:1] for line in block.text.splitlines()} <= {"+", "-", " ", "@"}


def check_drawing(block: Block) -> None:
    assert not re.search(r"^\s*\$ ", block.text, re.MULTILINE), "write commands in a block of the language console"


CHECKS: dict[str, Callable[[Block], object]] = {
    "python": lambda block: compile(block.text, block.path.name, "exec"),
    "console": check_console,
    "json": lambda block: json.loads(block.text),
    "toml": check_toml,
    "ini": check_ini,
    "yaml": check_yaml,
    "diff": check_diff,
    "docker": check_dockerfile,
    "dockerfile": check_dockerfile,
    "text": check_drawing,
    "": check_drawing,
}


def place_of(block: Block) -> str:
    return f"{name_of(block.path)}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=place_of)
def test_a_block_is_what_its_language_says(block: Block) -> None:
    assert block.language in CHECKS, f"no check for the language {block.language!r}: write one, or choose another"
    CHECKS[block.language](block)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_page_has_code_outside_blocks(page: Path) -> None:
    assert not re.search(
        r"^\s*>>> |^\.\. (doctest|testcode|highlight|prompt)::", page.read_text(encoding="utf-8"), re.MULTILINE
    )


@pytest.mark.parametrize("page", sorted({block.path for block in BLOCKS}), ids=name_of)
def test_settings_in_blocks_exist(page: Path) -> None:
    texts = [block.text for block in blocks_in(page) if block.language not in {"python", "text", ""}]
    names = {name for text in texts for name in _VARIABLE.findall(re.sub(r"#.*", "", text))}
    assert {name for name in names if name.lower() not in Settings.model_fields} <= FOREIGN


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run_by], ids=place_of)
def test_the_test_that_runs_a_block_exists(block: Block) -> None:
    file, _, name = block.run_by.partition("::")
    assert name in extension("test_links").names_in(file)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.source], ids=place_of)
def test_a_file_that_a_page_includes_is_used_by_a_test(block: Block) -> None:
    assert block.source is not None
    tests = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("test_*.py")]
    texts = [path.read_text(encoding="utf-8") for path in tests]
    texts += [each.text for each in BLOCKS if each.language == "console" and not each.not_run]
    names = (block.source.stem, f"{block.source.parent.name}/*")
    assert block.source in tests or any(name in text for text in texts for name in names)


@pytest.mark.parametrize("block", [block for block in RUN if block.language == "python"], ids=place_of)
def test_python_runs(block: Block) -> None:
    exec(compile(block.text, place_of(block), "exec"), {"__name__": "example"})


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.name in FIRST_PAGES else pytest.mark.slow, id=name_of(page))
        for page in CONSOLES
    ],
)
def test_commands_run(page: Path, redis_server: RedisServer, redis_db: object, tmp_path: Path) -> None:
    shown = [block for block in RUN if block.path == page and block.language == "console"]
    run_page(shown, tmp_path, redis_server.port)


def page_of(folder: Path, text: str, name: str = "page.rst") -> list[Block]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return blocks_in(path)


def test_a_mark_says_why_a_block_is_not_run(tmp_path: Path) -> None:
    (block,) = page_of(
        tmp_path, ".. not run: needs a cluster\n\n.. code-block:: console\n   :caption: a\n\n   $ helm ls\n"
    )
    assert (block.not_run, block.language, block.text) == ("needs a cluster", "console", "$ helm ls\n")


def test_marks_and_blocks_of_markdown_are_read(tmp_path: Path) -> None:
    text = "<!-- run by: unit/test_a.py::test_b -->\n```toml\na = 1\n```\n"
    (block,) = page_of(tmp_path, text, "page.md")
    assert (block.run_by, block.language, block.text, block.line) == ("unit/test_a.py::test_b", "toml", "a = 1\n", 2)


def test_blocks_in_lists_and_tables_are_found(tmp_path: Path) -> None:
    text = "* one\n\n  .. code-block:: json\n\n     {}\n\n* two::\n\n    drawn\n"
    assert [(block.language, block.text) for block in page_of(tmp_path, text)] == [("json", "{}\n"), ("", "drawn\n")]


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no-such-command"):
        run_page(page_of(tmp_path, ".. code-block:: console\n\n   $ no-such-command\n"), tmp_path, 1)


def test_a_worker_that_does_not_start_is_noticed(tmp_path: Path) -> None:
    text = ".. code-block:: console\n\n   $ REDIS_PORT=none redis-consumer run\n   $ echo ok\n   ok\n"
    with pytest.raises(AssertionError, match="REDIS_PORT"):
        run_page(page_of(tmp_path, text), tmp_path, 1)


def test_an_output_that_differs_is_noticed(tmp_path: Path) -> None:
    text = ".. code-block:: console\n\n   $ echo 7 cells\n   8 cells\n   9 nuclei\n"
    with pytest.raises(AssertionError, match="9 nuclei"):
        run_page(page_of(tmp_path, text), tmp_path, 1)
