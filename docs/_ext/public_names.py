"""Links each name to the page that documents the object, by whichever path it is named.

Classes are defined in small files and have shorter, public paths (``redis_consumer.consumers.Consumer``). Annotations
and docstrings name them by either path, or by their last part alone.

Names of other packages, and private ones of ours, are shown without a link, but it is checked that they exist. The
build reads no lists of names from other sites, so it works offline.
"""

from __future__ import annotations

import builtins
import importlib
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole

OURS = "redis_consumer"
# Names in our annotations for numpy.typing.NDArray of one kind or another, and for unions that docstrings explain;
# where an annotation stays text, they do.
ALIASES = {"Analysis", "Array", "Batch", "Floats", "Input", "Labels", "Model"}


class NameRole(XRefRole):
    """The default role: a link if the name is documented, otherwise code (an argument, a field)."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Look among Python's names, whichever the role's own name is."""
        self.name = "py:obj"
        return super().run()

    def process_link(
        self, env: BuildEnvironment, refnode: nodes.Element, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Mark the reference as optional, and store its place."""
        refnode["is_optional"] = True
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        return super().process_link(env, refnode, has_explicit_title, title, target)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Find what Sphinx didn't; None leaves it to be reported as a broken reference."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    public = _documented(env).get(target) or _documented(env).get(_real_path(target) or "")
    if public is not None:
        domain = env.domains["py"]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)
    if node.get("is_optional") or target in ALIASES:
        return content
    is_public = target.startswith(OURS) and "._" not in target
    return content if not is_public and _find(target) is not None else None


def _documented(env: BuildEnvironment) -> dict[str, str]:
    """The documented name of each object, by its real path and, if it is unique, by its last part."""
    known: dict[str, str] | None = getattr(env, "public_names", None)
    if known is not None:
        return known
    known = {}
    last_parts: dict[str, list[str]] = {}
    for name, entry in env.domains["py"].objects.items():
        if entry.objtype in {"class", "exception", "function", "module"} and not entry.aliased:
            known[_real_path(name) or name] = name
            last_parts.setdefault(name.rpartition(".")[2], []).append(name)
    known |= {part: names[0] for part, names in last_parts.items() if len(names) == 1 and part not in known}
    env.public_names = known  # type: ignore[attr-defined]
    return known


def _real_path(name: str) -> str | None:
    found = _find(name)
    module, qualname = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{module}.{qualname}" if module and qualname else None


def _find(name: str) -> Any:
    """The object of a dotted name, also a builtin; None if there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except (ImportError, ValueError):
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found
    return getattr(builtins, name, None)


def tidy_signature(
    _app: Sphinx, _kind: str, _name: str, _found: object, _options: object, arguments: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Replace a dataclass's default that is created for each object by text that Python can parse."""
    return (arguments.replace("<factory>", "...") if arguments else arguments), result


def tidy_docstring(_app: Sphinx, _kind: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    """Escape an asterisk in a shape, such as (B, *shape_yx, C), so that no emphasis begins there."""
    lines[:] = [re.sub(r"(?<=[(\s])\*(?=[a-z_]+[,)])", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role and the search for names."""
    app.add_role("name", NameRole(innernodeclass=nodes.literal))
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("autodoc-process-docstring", tidy_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
