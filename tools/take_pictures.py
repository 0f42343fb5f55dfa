"""Takes the pictures of the page for the documentation, with the real server and a worker.

``PYTHONPATH=tests python -m tools.take_pictures`` writes ``docs/pictures``. It needs Chromium.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from playwright.sync_api import Locator, Page

from support.browser import FOLDER, open_browser
from support.page_server import PageServer

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SAMPLE = FOLDER / "samples" / "nuclei.tif"
TIMEOUT_MS = 120_000
IMAGES = 10
#: Milliseconds for the last tiles to be drawn.
_SETTLED_MS = 1500


def take(shown: Page | Locator, name: str) -> None:
    """Write a picture with 128 colours, which is a quarter of the size."""
    path = PICTURES / f"{name}.png"
    shown.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def first_mask(tab: Page, address: str) -> None:
    """Drop an image, look at the mask, the objects, a plot and the files."""
    tab.goto(address)
    tab.get_by_text("Drop an image").wait_for()
    take(tab, "start")
    tab.locator("input[type=file]").first.set_input_files(SAMPLE)
    tab.get_by_test_id("objects").wait_for()
    tab.locator(".long-table").wait_for()
    tab.wait_for_timeout(_SETTLED_MS)
    take(tab, "mask")
    tab.get_by_role("button", name="Files").click()
    take(tab, "files")
    tab.keyboard.press("Escape")
    tab.get_by_label("Colour by").select_option("Area (px)")
    tab.get_by_role("tab", name="Plots").click()
    tab.locator(".u-over").wait_for()
    tab.wait_for_timeout(_SETTLED_MS)
    take(tab.locator(".tabs"), "plots")


def many_images(tab: Page, address: str, folder: Path) -> None:
    """Drop many images, one of them bad, and look at the batch."""
    image = tifffile.imread(SAMPLE)
    paths = [folder / f"A{number:02}.tif" for number in range(1, IMAGES + 1)]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, np.roll(image, 60 * number, axis=1), compression="deflate", metadata={"axes": "YX"})
    paths.append(folder / "A11.tif")
    paths[-1].write_bytes(b"this file was cut off")
    tab.goto(address)
    tab.locator("input[type=file]").first.set_input_files(paths)
    tab.get_by_text("files are uploaded").wait_for()
    tab.locator("#model").wait_for()
    tab.wait_for_timeout(_SETTLED_MS)
    take(tab, "new-batch")
    tab.get_by_role("button", name="Run 11 images").click()
    tab.get_by_text(f"{IMAGES} done · 1 failed").wait_for()
    tab.wait_for_timeout(5 * _SETTLED_MS)
    take(tab, "batch")
    tab.get_by_role("button", name="Show the reasons").click()
    tab.get_by_role("row", name="A11.tif").wait_for()
    take(tab, "batch-reasons")


def standstill(tab: Page, server: PageServer) -> None:
    """Stop the worker, and look at a queue whose job waits."""
    server.stop("run")
    tab.goto(server.address)
    tab.locator("input[type=file]").first.set_input_files(SAMPLE)
    tab.get_by_test_id("state").get_by_text("place 1 of 1").first.wait_for()
    tab.goto(f"{server.address}/#/queues")
    tab.locator(".queue.bad, .queue.warn").first.wait_for()
    take(tab, "queues")


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        server = PageServer.make(Path(folder))
        try:
            server.work().serve()
            tab = browser.new_page(viewport={"width": 1100, "height": 760})
            tab.set_default_timeout(TIMEOUT_MS)
            first_mask(tab, server.address)
            many_images(tab, server.address, Path(folder))
            standstill(tab, server)
        finally:
            server.close()


if __name__ == "__main__":
    main()
