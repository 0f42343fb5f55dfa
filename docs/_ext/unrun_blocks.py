"""The directive ``.. unrun-blocks::`` lists the code blocks that no test runs. Their pages give the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from code_blocks import DOCS, MARK, blocks_in, pages


class UnrunBlocks(Directive):
    """The directive."""

    def run(self) -> list[nodes.Node]:
        """List the blocks that no test runs, page by page."""
        holder = nodes.container()
        self.state.nested_parse(StringList(list(unrun()), source="code_blocks"), 0, holder)
        return holder.children


def unrun() -> Iterator[str]:
    """A table of the blocks that no test runs, as reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 26 44 30", "")
    yield from ("   * - Page", "     - First line", "     - Why")
    for block in (block for page in pages() for block in blocks_in(page) if block.not_run):
        inside = DOCS in block.path.parents
        where = f":doc:`/{block.path.relative_to(DOCS).with_suffix('')}`" if inside else f"``{block.path.name}``"
        first = block.text.strip().splitlines()[0].replace("`", "'")
        yield from (f"   * - {where}", f"     - ``{first}``", f"     - {block.not_run}")
    yield ""


def say_what_is_not_run(_app: Sphinx, doctree: nodes.document) -> None:
    """Below each block that no test runs, write so, with the reason."""
    for comment in list(doctree.findall(nodes.comment)):
        found = MARK.match(f".. {comment.astext()}")
        if found is None or found[1] != "not run":
            continue
        block = comment.next_node(nodes.literal_block, descend=False, siblings=True, ascend=False)
        block = block or comment.next_node(nodes.container, descend=False, siblings=True, ascend=False)
        if block is None:
            raise ValueError(f"{doctree['source']}: no block of code below '{comment.astext()}'")
        note = nodes.paragraph("", "", nodes.emphasis("", f"Not run by the tests: {found[2]}."))
        block.parent.insert(block.parent.index(block) + 1, note)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive and the notes."""
    app.add_directive("unrun-blocks", UnrunBlocks)
    app.connect("doctree-read", say_what_is_not_run)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
