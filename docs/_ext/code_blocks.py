"""Lists the code blocks of the pages, and what checks each.

A block is run or parsed by its language. A comment in the line above it says otherwise, as here in reStructuredText, or
as ``<!-- … -->`` in Markdown::

    .. not run: needs a cluster

    .. run by: integration/test_cli_demo.py::test_demo_finds_the_nuclei
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1]
PAPERS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md")

MARK = re.compile(r"^\s*(?:\.\.|<!--) (not run|run by): (.+?)(?: -->)?\s*$")
_KINDS = "code-block|code|sourcecode|parsed-literal|literalinclude"
_DIRECTIVE = re.compile(rf"^\s*(?:[-*] +)*\.\. (?P<kind>{_KINDS}):: *(?P<argument>.*)$")
_FENCE = re.compile(r"^ *```(?P<language>[\w+-]*)\s*$")
_OPTION = re.compile(r"^ *:([\w-]+): *(.*)$")


@dataclass(frozen=True)
class Block:
    """Code that a page shows.

    Attributes:
        path: the page.
        line: where it begins, from 1.
        language: as the page names it; empty for a drawing, which has none.
        text: the code, without its margin.
        not_run: why no test runs it; empty if one does.
        run_by: the test that runs it, below ``tests/``; empty if only the language decides.
        source: the file that the page includes; None if the code is in the page.
    """

    path: Path
    line: int
    language: str
    text: str
    not_run: str = ""
    run_by: str = ""
    source: Path | None = None


def blocks_in(path: Path) -> list[Block]:
    """All blocks of a page in reStructuredText or Markdown, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    find = _in_markdown if path.suffix == ".md" else _in_text
    return list(find(path, lines))


def _in_markdown(path: Path, lines: list[str]) -> Iterator[Block]:
    start = -1
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start < 0:
            start, language = number, fence["language"]
        else:
            text = textwrap.dedent("\n".join(lines[start + 1 : number])) + "\n"
            yield Block(path, start + 1, language, text, *_mark(lines, start))
            start = -1


def _in_text(path: Path, lines: list[str]) -> Iterator[Block]:
    for number, line in enumerate(lines):
        directive = _DIRECTIVE.match(line)
        if directive is not None:
            yield _directive(path, lines, number, directive)
        elif line.rstrip().endswith("::") and not line.lstrip().startswith(".."):
            yield Block(path, number + 1, "", _body(lines, number, number + 1), *_mark(lines, number))


def _directive(path: Path, lines: list[str], number: int, directive: re.Match[str]) -> Block:
    options = dict(_options(lines[number + 1 :]))
    mark = _mark(lines, number)
    if directive["kind"] != "literalinclude":
        body = _body(lines, number, number + 1 + len(options))
        return Block(path, number + 1, directive["argument"], body, *mark)
    source = (path.parent / directive["argument"]).resolve()
    return Block(path, number + 1, options.get("language", ""), source.read_text(encoding="utf-8"), *mark, source)


def _options(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        option = _OPTION.match(line)
        if option is None:
            return
        yield option[1], option[2]


def _body(lines: list[str], number: int, start: int) -> str:
    """The lines from `start` that are indented below line `number`."""
    margin = len(lines[number]) - len(lines[number].lstrip())
    body = []
    for line in lines[start:]:
        if line.strip() and len(line) - len(line.lstrip()) <= margin:
            break
        body.append(line)
    return textwrap.dedent("\n".join(body)).strip("\n") + "\n"


def _mark(lines: list[str], number: int) -> tuple[str, str]:
    """Read the comment above a line: the reason why the block isn't run, and the test that runs it."""
    above = next((line for line in reversed(lines[:number]) if line.strip()), "")
    found = MARK.match(above)
    kind, text = (found[1], found[2]) if found else ("", "")
    return (text if kind == "not run" else "", text if kind == "run by" else "")


def pages() -> list[Path]:
    """README, the other papers, and all pages of the documentation."""
    papers = [DOCS.parent / name for name in PAPERS]
    return [*papers, *sorted(page for page in DOCS.rglob("*.rst") if "_build" not in page.parts)]
