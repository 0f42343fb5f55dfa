"""Writes the tables that describe the code into the committed pages of the documentation.

A page marks the place of a table: a comment ``.. generated: NAME`` stands above it, and ``.. end of generated`` below.
Lines that are indented below the first comment are the input of the table. ``make docs`` runs this;
``python -m tools.write_pages --check`` changes nothing and exits 1 if a page differs from the code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tools import page_tables

DOCS = Path(__file__).parents[1] / "docs"
_BEGIN = ".. generated: "
_END = ".. end of generated"
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}(\S+)\n((?:   [^\n]*\n)*).*?^{re.escape(_END)}$", re.MULTILINE | re.DOTALL)

#: Makes a table from the lines below its mark.
TABLES: dict[str, Callable[[list[str]], Iterable[str]]] = {
    "settings": lambda _: page_tables.settings(),
    "kiosk-variables": page_tables.changes,
    "metrics-of-workers": lambda _: page_tables.metric_rows(page_tables.METRICS["worker"]),
    "metrics-of-queues": lambda _: page_tables.metric_rows(page_tables.METRICS["queues"]),
    "alerts": lambda _: page_tables.alert_rows(page_tables.rules()),
    "options-of-consumers": lambda _: page_tables.option_rows(),
    "contract-attributes": lambda _: page_tables.contract_attributes(),
    "contract-tests": lambda _: page_tables.contract_tests(),
}


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page that has generated tables, with the text that it should have."""
    for path in sorted(DOCS.rglob("*.rst")):
        text = path.read_text(encoding="utf-8")
        if text.startswith(_BEGIN) or f"\n{_BEGIN}" in text:
            yield path, renewed(text)


def renewed(text: str) -> str:
    """Replace the tables of a page's text by those of the code.

    Raises:
        ValueError: a mark names no table, or has no end.
    """
    if text.count(_BEGIN) != len(_BLOCK.findall(text)):
        raise ValueError(f"each {_BEGIN.strip()!r} needs {_END!r} below its table")
    return _BLOCK.sub(_renewed_block, text)


def _renewed_block(found: re.Match[str]) -> str:
    name, given = found[1], found[2]
    if name not in TABLES:
        raise ValueError(f"no table is named {name!r}; there are {', '.join(TABLES)}")
    made = "\n".join(TABLES[name]([line.strip() for line in given.splitlines()])).rstrip()
    return f"{_BEGIN}{name}\n{given}\n{made}\n\n{_END}"


def main(arguments: Sequence[str]) -> int:
    """Write the pages that differ, or only list them with ``--check``."""
    differing = [(path, text) for path, text in pages() if path.read_text(encoding="utf-8") != text]
    for path, text in differing:
        if "--check" in arguments:
            print(f"{path}: differs from the code; run make docs", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
