"""Reads README and documentation: their texts, and the code, commands and links in them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from code_blocks import blocks_in, pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [page for page in pages() if page.suffix == ".rst"]
PAPERS = [page for page in pages() if page.suffix == ".md"]


def extension(name: str) -> ModuleType:
    """An extension of the documentation's build, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(path: Path) -> str:
    """Path below the repository, for the names of tests."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The code of one language that a page shows, included files left out."""
    return [block.text for block in blocks_in(path) if block.language == language and block.source is None]


def commands(path: Path, program: str) -> list[str]:
    """Calls of a program: in blocks of the console, after a ``$``, or between backticks."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    shell = [line for block in re.findall(r"^ *\$ .*$", text, re.MULTILINE) for line in re.split(r"&&|[;|]", block)]
    inline = re.findall(r"`([^`\n]+)`", text)
    found = (re.match(rf"(?:[A-Z_]+=\S+ )*(?:\S*/)?{program} (.+)", each.strip(" $")) for each in [*shell, *inline])
    return [each[1].strip() for each in found if each]
