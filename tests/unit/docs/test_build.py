"""The documentation builds without a warning, and references from and to the kiosk's pages have a target."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from support.documents import DOCS, ROOT, extension

CLASS = "redis_consumer.consumers.TensorFlowServingConsumer"
#: A page such as the kiosk's developers have one, with names and references of the same kinds, under the same label.
A_PAGE_OF_THE_KIOSK = f"""
.. _CUSTOM_CONSUMER:

A class for a queue
===================

See :doc:`kiosk:CUSTOM_JOB` and :ref:`the kiosk <kiosk:index>`, :class:`{CLASS}`, :meth:`~{CLASS}._get_predict_client`,
:meth:`~{CLASS}.grpc_image` and :meth:`~{CLASS}._consume`; a queue is :data:`queue_name`;
start |consume-redis-events.py|.

.. code-block:: python

    def get_consumer(consumer_type, **kwargs):
        raise ValueError(consumer_type)

.. |consume-redis-events.py| raw:: html

    <tt>consume-redis-events.py</tt>
"""


def build(folder: Path) -> Path:
    """Build the documentation of a tree; AssertionError where Sphinx warns of anything."""
    html = folder / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", "html"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return html


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a copy of the documentation, built."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in {"docs", "build"}:
            (folder / path.name).symlink_to(path)
    build(folder)
    return folder


def test_the_names_that_the_kiosk_refers_to_are_in_the_inventory(tree: Path) -> None:
    body = (tree / "html" / "objects.inv").read_bytes().partition(b"zlib.\n")[2]
    names = {" ".join(line.split()[:2]) for line in zlib.decompress(body).decode().splitlines()}
    methods = {f"{CLASS}.{name} py:method" for name in ("_get_predict_client", "grpc_image", "_consume")}
    pages = {"CUSTOM_CONSUMER std:doc", "custom_consumer std:label", "index std:label", f"{CLASS} py:class"}
    assert names >= methods | pages
    page = (tree / "html" / "CUSTOM_CONSUMER.html").read_text(encoding="utf-8")
    assert 'id="custom-consumer"' in page
    assert 'id="deploying-a-custom-consumer"' in page


def test_every_setting_is_on_the_page_of_settings(tree: Path) -> None:
    assert "MAX_IMAGE_HEIGHT" in (tree / "html" / "settings.html").read_text(encoding="utf-8")


def test_what_is_not_run_says_so_and_is_listed(tree: Path) -> None:
    assert "Not run by the tests: needs PyTorch." in (tree / "html" / "serving.html").read_text(encoding="utf-8")
    assert "needs PyTorch" in (tree / "html" / "contribute.html").read_text(encoding="utf-8")


def test_a_page_of_the_kiosk_finds_what_it_refers_to(tree: Path, tmp_path: Path) -> None:
    page = tree / "docs" / "CUSTOM_CONSUMER.rst"
    ours = page.read_text(encoding="utf-8")
    kept = shutil.copytree(tree / "html", tmp_path / "html")
    page.write_text(A_PAGE_OF_THE_KIOSK, encoding="utf-8")
    try:
        text = (build(tree) / "CUSTOM_CONSUMER.html").read_text(encoding="utf-8")
    finally:
        # Put back, and not built once more, for the other tests.
        page.write_text(ours, encoding="utf-8")
        shutil.rmtree(tree / "html")
        shutil.move(kept, tree / "html")
    site = extension("kiosk_inventory").SITE
    assert set(re.findall(rf'href="{site}([^"]*)"', text)) == {
        "CUSTOM-JOB.html",
        "index.html",
        "CUSTOM-JOB.html#queue_name",
    }
    assert text.count(f'href="reference/consumers.html#{CLASS}') == 4
