"""Checks that every installed package allows commercial use and has no copyleft licence. Exits 1 if one doesn't."""

from __future__ import annotations

import re
import sys
from email.message import Message
from importlib.metadata import Distribution, distributions
from typing import cast

#: Licences that would apply to our users' own code, or that forbid commercial use.
REFUSED = re.compile(r"\b(A?GPL|LGPL|GNU (Affero|Lesser|General)|SSPL|BUSL|non-?commercial|CC-BY-NC)", re.IGNORECASE)
#: A package under several licences passes if one of them does.
ACCEPTED = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|Zlib|Unlicense|Public Domain)", re.IGNORECASE
)
#: Read by hand: the metadata names no licence, the package's own text does.
READ_BY_HAND = {"axe-playwright-python": "MIT, with axe-core, MPL-2.0", "promql-parser": "MIT"}


def licences(distribution: Distribution) -> list[str]:
    """The licences that a package declares: its expression, else its classifiers, else its free text."""
    metadata = cast("Message", distribution.metadata)
    if metadata.get("License-Expression"):
        return re.split(r"\s+OR\s+", str(metadata["License-Expression"]))
    classifiers = [
        text.split("::")[-1].strip() for text in metadata.get_all("Classifier") or [] if text.startswith("License")
    ]
    return classifiers or [str(metadata.get("License") or "")[:200]]


def is_fine(names: list[str]) -> bool:
    """Whether one of the licences is permissive; within one expression, AND binds all."""
    return any(ACCEPTED.search(name) and not REFUSED.search(name) for name in names)


def main() -> int:
    """Check the environment this runs in."""
    bad = []
    count = 0
    for distribution in distributions():
        name = distribution.metadata["Name"]
        names = [READ_BY_HAND[name]] if name in READ_BY_HAND else licences(distribution)
        count += 1
        if not is_fine(names):
            bad.append(f"{name}: {' OR '.join(names) or 'no licence named'}")
    for line in sorted(bad):
        print(f"licence not allowed: {line}", file=sys.stderr)
    if not bad:
        print(f"licences: {count} packages, all permissive")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
