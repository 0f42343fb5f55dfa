"""Reads the stages of a Dockerfile and their instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One stage of a Dockerfile.

    Attributes:
        name: after ``AS``.
        base: image or stage that it starts from.
        steps: pairs of instruction and words, in order.
    """

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def read_dockerfile(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """Give the arguments before the first stage, with their defaults, and the stages by name, in order."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in filter(None, re.sub(r"\\\n\s*", " ", text).splitlines()):
        instruction, words = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = words.partition(" AS ")
            stages[name] = Stage(name, base)
        elif stages:
            list(stages.values())[-1].steps.append((instruction, words))
        else:
            name, _, default = words.partition("=")
            arguments[name] = default
    return arguments, stages


def steps_of(stages: dict[str, Stage], name: str) -> list[tuple[str, str]]:
    """All steps of the image that a target becomes, those of the stages below it first."""
    stage = stages[name]
    return [*(steps_of(stages, stage.base) if stage.base in stages else []), *stage.steps]


def last(steps: list[tuple[str, str]], instruction: str) -> str:
    """What holds at the end: the words of the last such instruction."""
    return [words for each, words in steps if each == instruction][-1]


def command_in(words: str) -> list[str]:
    """The command of a ``CMD`` or ``HEALTHCHECK … CMD`` in exec form."""
    found: list[str] = json.loads(words[words.index("[") :])
    return found
