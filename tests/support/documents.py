"""What do README and documentation say? Their texts, and the code, commands and links in them."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAPERS = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]
PAGES = sorted(DOCS.rglob("*.rst"))


def name_of(path: Path) -> str:
    """Path below the repository, for the names of tests."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of one language."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = re.finditer(
        rf"^(?P<margin> *)\.\. code-block:: {language}\n\n(?P<body>(?:(?P=margin) +\S.*\n|\s*\n)+)", text, re.MULTILINE
    )
    return [textwrap.dedent(each["body"]) for each in found]


def commands(path: Path, program: str) -> list[str]:
    """Calls of a program: in blocks of the console, after a ``$``, or between backticks."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    shell = [line for block in re.findall(r"^ *\$ .*$", text, re.MULTILINE) for line in re.split(r"&&|[;|]", block)]
    inline = re.findall(r"`([^`\n]+)`", text)
    found = (re.match(rf"(?:[A-Z_]+=\S+ )*(?:\S*/)?{program} (.+)", each.strip(" $")) for each in [*shell, *inline])
    return [each[1].strip() for each in found if each]


def extension(name: str) -> ModuleType:
    """An extension of the documentation's build, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
