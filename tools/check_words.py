"""Finds habits of language that make a text hard to read; exits 1 where it finds one.

It reads pages, messages, comments and docstrings.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("*.rst", "*.md", "*.txt", "*.lua", "*.yaml", "*.tpl")
#: Folders whose Python files are read; pages are read everywhere.
SOURCES = ("src", "tools", "benchmarks", "simulation", "training", "docs", "examples")
#: Texts that others fixed, or that list the habits.
SKIPPED = ("LICENSE", "docs/kiosk-objects.txt", "tools/check_words.py", "tests/")
#: What is found, and what to write instead.
HABITS = {
    r"\b(?:is|are|was|were|be|been|far) away\b": "is unavailable, or cannot be reached",
    r"\b(?:is|are|was|were) over\b(?! \d)": "has ended, or timed out",
    r"\bin words\b": "with a readable reason",
    r"\bminds? (?:no )?(?:signals?|outages?)\b": "handles",
    r"\btells? (?:of|how|what|when|where|which|whether|why|nothing|its|the|an?|each|all|by)\b": "says, or shows",
    r"\b(?:is|are|was|were|be|been) told\b": "receives, is notified, or is configured",
    r"\bwhat (?:becomes|became|has become) of\b": "what happens to",
    r"\bas it goes\b": "while it runs",
    r"\bmay as well\b": "can also",
    r"\bfor who\b|\bfor whom\b|\bwho reads\b": "for anyone who",
    r"\bwhoever\b": "anyone who, or the caller",
    r"\bsome \d": "about",
    r"\bno fault of\b|\bwhose fault\b": "for a reason other than",
    r"\bnobody's\b": "of no one, or that has no owner",
    r"\bheed(?:s|ed)?\b": "respects, or uses",
    r"\bstrangers?\b": "other software",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\band the like\b|\bor the like\b": "and similar",
    r"\bweighs?\b": "takes, or uses (memory)",
    r"\breckon(?:s|ed|ing)?\b": "estimate",
    r"\bof (?:one|somebody)'s own\b": "of your own",
    r"\bthat (?:is|are) none\b": "that is not valid",
    r"\bgo(?:es)? on\b(?! with| to)": "continues",
    r"\bkilled whole\b": "killed with all its processes",
    r"\bknows? (?:no|nothing)\b": "does not know, or has no",
    r"\b(?:honest|vouch(?:es)?|fond of|promises itself)\b": "a plain statement of what happens",
    r"\bcomes? to nothing\b|\bcomes? about\b|\bin whatever way\b": "a plain verb",
    r"\b(?:lets?|let) .{1,40} lose\b": "does not affect",
    r"\bin the end\b": "finally, or at last",
    r"\bis (?:no|none) (?:of|any)\b": "is not",
    r"(?<!may )\bas well\b(?! as)": "also, or too",
    r"\banew\b": "again",
    r"\b(?:nobody|somebody)\b": "no one or someone, or the passive",
    r"\bwins?\b(?= over|[;,.)]|$)": "overrides, or takes precedence",
    r"\bsay whether\b": "return whether, or check whether",
    r"\btakes? note\b": "record, or note",
    r"\bwithout end\b": "endlessly, or again and again",
    r"\bfrom then on\b|\bfor good\b|\bin vain\b": "later, or without success",
    r"\bunder way\b": "in flight, or running",
    r"\b(?:none|empty|false|true) where\b": "if",
    r"\bas people see\b": "as it is shown to users",
    r"\btold apart\b": "distinguished",
    r"\bthe scientist's name\b": "the user's name",
    r"\bof use\b": "useful",
}
_COMPILED = {re.compile(pattern, re.IGNORECASE): advice for pattern, advice in HABITS.items()}


def find(text: str) -> Iterator[tuple[str, str]]:
    """Yield each habit that a line of text shows, with what to write instead."""
    for pattern, advice in _COMPILED.items():
        for match in pattern.finditer(text):
            yield match.group(), advice


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that a person reads: of Python, its comments and its strings of several words."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), start=1)
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def question_of(path: Path) -> tuple[int, str] | None:
    """Return the line of a module's docstring that asks instead of stating, None for none."""
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return (1, first) if "?" in first else None


def tracked() -> list[Path]:
    """Files of the repository that are checked."""
    wanted = [*PAGES, *(f"{folder}/*.py" for folder in SOURCES), "*.py"]
    names = subprocess.check_output(["git", "ls-files", "-z", *wanted], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in sorted(set(names)) if name and not name.startswith(SKIPPED) and "_pb" not in name]


def main(arguments: Sequence[str]) -> int:
    """Check files and print each hit."""
    count = 0
    paths = [Path(name).resolve() for name in arguments] or tracked()
    for path in paths:
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if path.suffix == ".py" and (question := question_of(path)):
            count += 1
            print(f"{name}:{question[0]} the module's docstring asks a question: {question[1][:80]}", file=sys.stderr)
        for number, line in lines_of(path):
            for found, advice in find(line):
                count += 1
                print(f"{name}:{number} {found!r}: write {advice}", file=sys.stderr)
    if not count:
        print(f"words: {len(paths)} files, no hits")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
