"""The role ``:test:`integration/test_queue.py::test_one_sweep_at_a_time``` links to a test in ``tests/``.

The name is shown as a sentence. A name that no test has is a warning, which stops the build.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

TESTS = Path(__file__).parents[2] / "tests"


class TestRole(SphinxRole):
    """The role."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Link to the file of the test, which is offered beside the pages."""
        file, _, name = self.text.partition("::")
        if name not in names_in(file):
            where = self.inliner.reporter.error(f"no test {name!r} in tests/{file}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, where)], [where]
        target = f"/../tests/{file}"
        link = download_reference(self.rawtext, "", reftarget=target, refdomain="", refexplicit=True, refwarn=False)
        link["reftitle"] = f"pytest tests/{self.text}"
        link["refdoc"] = self.env.docname
        link += nodes.emphasis("", sentence(name))
        return [link], []


@cache
def names_in(file: str) -> frozenset[str]:
    """The tests of a file below ``tests/``; none if there is no such file."""
    path = TESTS / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return frozenset(re.findall(r"^def (test_\w+)", text, re.MULTILINE))


def sentence(name: str) -> str:
    """A test's name as words: ``test_one_sweep_at_a_time`` is "one sweep at a time"."""
    return name.removeprefix("test_").replace("_", " ")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role."""
    app.add_role("test", TestRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
