"""Builds the documentation offline, from the package that is installed beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import redis_consumer

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "redis_consumer"
author = "the redis_consumer developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's own name
release = redis_consumer.__version__
version = release.partition(".dev")[0]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "command_help",
    "kiosk_inventory",
    "public_names",
    "test_links",
    "unrun_blocks",
]
exclude_patterns = ["_ext", "examples"]
# A name in single backticks, in a docstring or here, is a link if it can be one; see public_names.
default_role = "name"

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Sphinx's name for an annotated union.
nitpick_ignore = [("py:class", "types.Annotated")]

html_theme = "furo"
html_title = f"redis_consumer {release}"
html_copy_source = False
html_show_sphinx = False
