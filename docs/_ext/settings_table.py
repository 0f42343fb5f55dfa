"""The directive ``.. settings-table::`` lists settings as the package itself describes them.

With names after it (``.. settings-table:: QUEUE REDIS_HOST``) it lists only those. A new setting of the code appears in
the documentation by itself. ``.. kiosk-variables::`` does the same for lines such as
``QUEUE: what changed since the kiosk``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from redis_consumer.settings import Settings
from redis_consumer.settings.options import allowed_values

# Descriptions of defaults that are computed from other settings or from the machine.
DEPENDENT = {
    "HOSTNAME": "host and process id",
    "MIN_SCALE": "1 / MAX_SCALE",
    "MODEL_SERVER": "tfs://TF_HOST:TF_PORT",
    "CALIBAN_MODEL": "TRACKING_MODEL",
    "MESMER_MODEL": "MULTIPLEX_MODEL",
}


class SettingsTable(Directive):
    """The directive."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Make one table of the named settings, or a section with a table for each group."""
        names = self.arguments[0].split() if self.arguments else None
        lines = StringList(list(rows(names) if names else sections()), source="redis_consumer.settings")
        holder = nodes.section()
        holder.document = self.state.document
        nested_parse_with_titles(self.state, lines, holder)
        return holder.children


class KioskVariables(Directive):
    """The directive; each line of its content names settings and says what changed about them."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make one table of the named settings."""
        lines = StringList(list(changes(self.content)), source="redis_consumer.settings")
        holder = nodes.container()
        self.state.nested_parse(lines, 0, holder)
        return holder.children


def changes(lines: Iterable[str]) -> Iterator[str]:
    """A table of settings as reStructuredText, from lines such as ``TF_HOST, TF_PORT: the same``."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 34 32 34", "")
    yield from ("   * - Variable, default", "     - What it does", "     - What changed")
    for line in lines:
        names, _, change = line.partition(": ")
        for name in names.split(", "):
            meaning = Settings.model_fields[name.lower()].description or ""
            yield from (
                f"   * - ``{name}``",
                "",
                f"       {_default(name)}",
                f"     - {_escape(meaning)}",
                f"     - {change}",
            )
    yield ""


def sections() -> Iterator[str]:
    """All settings as reStructuredText, a section a group."""
    for title, names in groups().items():
        yield from (title, "~" * len(title), "")
        yield from rows(names)


def rows(names: list[str]) -> Iterator[str]:
    """A table of settings as reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 27 20 53", "")
    yield from ("   * - Setting", "     - Default", "     - Meaning; values")
    for name in names:
        field = Settings.model_fields[name.lower()]
        values = allowed_values(name)
        meaning = f"{_escape(field.description or '')}" + (f". Takes {_escape(values)}" if values else "")
        yield from (f"   * - ``{name}``", f"     - {_default(name)}", f"     - {meaning}")
    yield ""


def groups() -> dict[str, list[str]]:
    """The settings' names by the first words of the classes that group them."""
    found: dict[str, list[str]] = {}
    for each in reversed(Settings.__mro__):
        names = [name.upper() for name in vars(each).get("__annotations__", {}) if name in Settings.model_fields]
        if names:
            found[str(each.__doc__).splitlines()[0].rstrip(".")] = names
    return found


def _default(name: str) -> str:
    if name in DEPENDENT:
        return _escape(DEPENDENT[name])
    field = Settings.model_fields[name.lower()]
    if field.default_factory is not None:
        raise ValueError(f"setting {name}: its default is worked out; say in DEPENDENT from what")
    value = field.default
    if value is None or value == "":
        return "none"
    return f"``{str(value).lower() if isinstance(value, bool) else value}``"


def _escape(text: str) -> str:
    """A description as reStructuredText: text between backticks is code, all else is plain."""
    code = text.split("`")
    return "".join(
        f"``{part}``" if number % 2 else re.sub(r"([*|\\_])", r"\\\1", part) for number, part in enumerate(code)
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("kiosk-variables", KioskVariables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
