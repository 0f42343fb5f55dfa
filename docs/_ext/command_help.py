"""The directive ``.. command-help:: run`` lists a command's options as ``--help`` does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from redis_consumer.cli.app import load_command


class CommandHelp(Directive):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Describe one command."""
        holder = nodes.container()
        lines = StringList(list(describe(self.arguments[0])), source="redis_consumer.cli")
        self.state.nested_parse(lines, 0, holder)
        return holder.children


def describe(name: str) -> Iterator[str]:
    """Usage, purpose, options and examples of a command, or of each in a group, as reStructuredText."""
    command = load_command(name)
    if not hasattr(command, "commands"):
        yield from _describe(name, command)
        return
    yield from (_escape(" ".join((command.help or "").split())), "")
    for verb, part in command.commands.items():
        yield from _describe(f"{name} {verb}", part)


def _describe(name: str, command: Any) -> Iterator[str]:
    arguments = [_placeholder(each) for each in _of(command, "argument")]
    yield from (
        ".. code-block:: console",
        "",
        f"   $ {' '.join(['redis-consumer', name, '[OPTIONS]', *arguments])}",
        "",
    )
    yield from (_escape(" ".join((command.help or "").split())), "")
    yield from (".. list-table::", "   :widths: 30 70", "")
    for option in _of(command, "option"):
        text = ", ".join(f"``{each}``" for each in [*option.opts, *option.secondary_opts])
        yield from (f"   * - {text}", f"     - {_escape(option.help or '')}")
    yield from ("", "Examples:", "", ".. code-block:: console", "")
    yield from (f"   $ {each}" for each in re.findall(r"^\$ (.+)$", command.epilog or "", re.MULTILINE))
    yield ""


def _placeholder(argument: Any) -> str:
    text = (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return text if argument.required else f"[{text}]"


def _of(command: Any, kind: str) -> list[Any]:
    return [each for each in command.params if each.param_type_name == kind and each.name != "help"]


def _escape(text: str) -> str:
    return re.sub(r"([*|\\_])", r"\\\1", text).replace("`", "``")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
