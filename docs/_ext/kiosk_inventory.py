"""Links references to the kiosk's documentation to its site, from a list of names beside our pages.

Sphinx reads such lists in its own format, usually from the other site. This one is written from
``kiosk-objects.txt`` at each build, so that the build works offline.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

SITE = "https://deepcell-kiosk.readthedocs.io/en/master/"
OBJECTS = Path(__file__).parents[1] / "kiosk-objects.txt"


def write_inventory(app: Sphinx, config: Config) -> None:
    """Write the list in Sphinx's format, and tell Sphinx where it is."""
    path = Path(app.doctreedir) / "kiosk.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(inventory(OBJECTS.read_text(encoding="utf-8")))
    config.intersphinx_mapping = {"kiosk": (SITE, str(path))}


def inventory(text: str) -> bytes:
    """The lines of a list, ``NAME KIND PLACE TITLE``, as an inventory of version 2."""
    head = "# Sphinx inventory version 2\n# Project: kiosk\n# Version:\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    rows = (line.split(maxsplit=3) for line in text.splitlines() if line and not line.startswith("#"))
    body = "".join(f"{name} {kind} 1 {place} {title}\n" for name, kind, place, title in rows)
    return head.encode() + zlib.compress(body.encode())


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the list before Sphinx checks its mapping."""
    app.connect("config-inited", write_inventory, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
