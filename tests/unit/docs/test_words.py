"""The glossary: the names of public classes are made of its words and of plain English words."""

from __future__ import annotations

import ast
import re

import pytest

from support.documents import DOCS, ROOT

SOURCE = ROOT / "src" / "redis_consumer"
TEXT = (DOCS / "words.rst").read_text(encoding="utf-8")
#: Names of formats, protocols, clouds and products, and of their parts.
FOREIGN = (
    "csv datatype flow geo google grpc http inference json mesmer onnx open parquet polaris redis roi s3 tf url wire"
)
#: Words that mean in a name what they mean in English.
PLAIN = """
async access address allowed any application bad batches body break broken cancelled case chain change check choices
client column context contract correction count counter cytoplasm decoder delete detection difference direct entry
equalization error explanation fact fake file form found function gauge hashes histogram id incoming input interrupted
invalid joiner kind large layer learned level limit linked linking listed log login look lost map memory merge meter
metric mismatch moved new no not nuclear numbering of off old opened out outlook page paint pairs permanent place
planned point problem progress reader reading refusal reply report request rerun resources retryable return role route
sample seen served service serving several short shown spec split spot stack state step storage store summary task temp
tiled time token too trouble type unavailable unsafe uploaded user value variable view watcher web windowed wrapper
writer wrong zip
"""


def words_of(text: str) -> set[str]:
    return {singular(word) for word in re.findall(r"[a-z0-9]+", text.lower())}


def singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) else word


def terms() -> set[str]:
    """The words of the terms and of what is emphasised in their descriptions."""
    names = re.findall(r"^(\S.*)\n   \S", TEXT, re.MULTILINE)
    return words_of(" ".join([*names, *re.findall(r"\*([^*\n]+)\*", TEXT)]))


def class_names() -> list[str]:
    paths = [path for path in SOURCE.rglob("*.py") if "_pb" not in path.parts]
    nodes = [node for path in paths for node in ast.parse(path.read_text(encoding="utf-8")).body]
    return sorted({node.name for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_")})


@pytest.mark.parametrize("name", class_names())
def test_a_class_is_named_by_words_of_the_glossary(name: str) -> None:
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+\d*", name)
    known = terms() | words_of(FOREIGN + PLAIN)
    assert words_of(" ".join(parts)) - known == set(), "add the word to docs/words.rst"


def test_each_term_has_one_entry() -> None:
    names = [name for line in re.findall(r"^(\S.*)\n   \S", TEXT, re.MULTILINE) for name in line.split(", ")]
    assert len(names) == len(set(names))
