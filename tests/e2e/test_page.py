"""The page in a browser, with the real server and a real worker: what a user does, screen by screen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from support.browser import FOLDER
from support.page_server import PageServer

#: 672 x 512 px, about 60 nuclei.
SAMPLE = FOLDER / "samples" / "nuclei.tif"
#: The first test waits until server and worker have loaded their libraries, on a machine that runs other tests.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """One server with one worker for all tests."""
    server = PageServer.make(tmp_path_factory.mktemp("page"))
    try:
        yield server.work().serve()
    finally:
        server.close()


@pytest.fixture(scope="module")
def job(server: PageServer, browser: Any) -> str:
    """Address of a finished job for the sample: it was dropped, and no other thing was done."""
    tab = browser.new_page()
    tab.goto(server.address)
    choose(tab, SAMPLE)
    expect(tab.get_by_test_id("objects")).to_be_visible(timeout=60_000)
    address: str = tab.url
    tab.close()
    return address.partition("?")[0]


def choose(tab: Page, *paths: Path) -> None:
    """Choose files on the first screen."""
    tab.locator("input[type=file]").first.set_input_files(list(paths))


def check_access(tab: Page) -> None:
    """No rule of axe-core is broken."""
    found = Axe().run(tab).response["violations"]
    assert [(each["id"], each["nodes"][0]["target"]) for each in found] == []


def colourful(tab: Page) -> int:
    """Number of pixels of the canvas that aren't grey: those of the mask."""
    number: int = tab.locator("canvas").evaluate("""(canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4) {
            const part = [data[i], data[i + 1], data[i + 2]];
            count += Math.max(...part) - Math.min(...part) > 20;
        }
        return count;
    }""")
    return number


def wait_for_mask(tab: Page) -> None:
    """Wait until the mask is drawn."""
    expect(tab.get_by_test_id("objects")).to_be_visible()
    for _ in range(200):
        if colourful(tab) > 1000:
            return
        tab.wait_for_timeout(50)
    raise AssertionError("no mask is drawn")


def test_one_file_becomes_a_mask(server: PageServer, tab: Page, job: str) -> None:
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(job)
    wait_for_mask(tab)
    assert 50 <= int(tab.get_by_test_id("objects").inner_text()) <= 70
    assert all(url.startswith((server.address, "data:")) for url in requests)
    expect(tab.get_by_role("heading", level=1)).to_have_text("nuclei.tif")
    expect(tab.get_by_text("How the image was read")).to_be_visible()
    expect(tab.locator(".long-table tbody tr[aria-rowindex]").first).to_be_visible()
    check_access(tab)


def test_the_table_is_one_click_away(server: PageServer, tab: Page, job: str) -> None:
    tab.goto(job)
    objects = int(tab.get_by_test_id("objects").inner_text())
    with tab.expect_download() as download:
        tab.get_by_role("link", name="CSV").click()
    assert len(download.value.path().read_text().splitlines()) == objects + 1
    for name in ("Fiji ROIs", "QuPath", "Labels"):
        address = tab.get_by_role("link", name=name, exact=True).get_attribute("href")
        assert tab.request.get(f"{server.address}{address}").ok
    tab.get_by_role("button", name="Files").click()
    check_access(tab)


def test_objects_are_linked_to_the_image(tab: Page, job: str) -> None:
    tab.goto(job)
    wait_for_mask(tab)
    row = tab.locator(".long-table tbody tr[aria-rowindex]").nth(4)
    label = row.locator("td").first.inner_text()
    row.click()
    expect(row).to_have_class(re.compile("selected"))
    expect(tab).to_have_url(re.compile("zoom="))  # the image moved to it, and the address names the place
    tab.locator("canvas").hover()
    expect(tab.locator(".under")).to_contain_text(f"object {label}")
    tab.locator("canvas").focus()
    tab.keyboard.press("n")
    expect(tab.locator("tr.selected")).not_to_have_text(label)


def test_a_link_leads_to_the_same_view(tab: Page, job: str) -> None:
    tab.goto(f"{job}?x=100.0&y=80.0&zoom=3&t=0&z=0")
    wait_for_mask(tab)
    tab.locator("canvas").focus()
    tab.keyboard.press("ArrowRight")
    expect(tab).to_have_url(re.compile(r"x=120\.0&y=80\.0&zoom=3"))


def test_plots_and_colours_by_a_measurement(tab: Page, job: str) -> None:
    tab.goto(job)
    wait_for_mask(tab)
    tab.get_by_label("Colour by").select_option("Area (px)")
    expect(tab.locator(".legend")).to_be_visible()
    tab.get_by_role("tab", name="Plots").click()
    plot = tab.locator(".plot .u-over")
    expect(plot).to_be_visible()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 5, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    tab.mouse.up()
    expect(tab.get_by_text("selected, shown alone in the image")).to_be_visible()
    check_access(tab)


def test_corrections_become_a_version(server: PageServer, tab: Page, job: str) -> None:
    tab.goto(job)
    wait_for_mask(tab)
    objects = int(tab.get_by_test_id("objects").inner_text())
    tab.get_by_role("tab", name="Edit").click()
    tab.get_by_role("tabpanel").get_by_text("Click an object").wait_for()
    tab.locator("canvas").focus()
    tab.keyboard.press("n")
    tab.keyboard.press("Delete")
    tab.keyboard.press("n")
    tab.keyboard.press("Delete")
    expect(tab.locator(".edits li")).to_have_count(2)
    tab.keyboard.press("Control+z")
    expect(tab.locator(".edits li")).to_have_count(1)
    check_access(tab)
    tab.get_by_role("button", name="Save 1 edit").click()
    expect(tab.get_by_test_id("objects")).to_have_text(str(objects - 1))
    expect(tab.get_by_text("This is version 1")).to_be_visible()


def test_a_size_is_drawn_and_the_job_runs_again(tab: Page, job: str) -> None:
    tab.goto(job)
    wait_for_mask(tab)
    tab.get_by_role("button", name="Draw one").click()
    box = tab.locator("canvas").bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 300, box["y"] + 200)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 345, box["y"] + 200, steps=3)
    tab.mouse.up()
    size = float(tab.get_by_label("A nucleus is this large").input_value())
    assert 20 < size < 100
    tab.get_by_role("button", name="Run again").click()
    expect(tab.get_by_text("from the size of a nucleus")).to_be_visible(timeout=60_000)
    assert tab.url.partition("?")[0] != job


def test_a_file_that_is_no_image_says_so(server: PageServer, tab: Page, tmp_path: Path) -> None:
    (tmp_path / "cells.tif").write_bytes(b"this is no image" * 10)
    tab.goto(server.address)
    choose(tab, tmp_path / "cells.tif")
    alert = tab.get_by_role("alert")
    expect(alert).to_contain_text("cells.tif")
    expect(alert.get_by_role("link", name="Choose another file")).to_be_visible()
    check_access(tab)


def test_many_files_are_a_batch_and_bad_ones_do_not_stop_it(server: PageServer, tab: Page, tmp_path: Path) -> None:
    paths = [shutil.copy(SAMPLE, tmp_path / name) for name in ("A01.tif", "A02.tif")]
    (tmp_path / "bad.tif").write_bytes(b"no image" * 9)
    tab.goto(server.address)
    choose(tab, *map(Path, paths), tmp_path / "bad.tif")
    tab.get_by_role("button", name="Run 3 images").click()
    expect(tab.get_by_text("2 done · 1 failed")).to_be_visible(timeout=60_000)
    tab.get_by_role("button", name="Show the reasons").click()
    expect(tab.get_by_role("row", name="bad.tif")).to_contain_text("cannot be processed")
    check_access(tab)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Zip of all").click()
    assert download.value.path().read_bytes()[:2] == b"PK"
    tab.goto(f"{server.address}/#/batches")
    expect(tab.get_by_text("2 done · 1 failed")).to_be_visible()


def test_queues_say_how_they_are(server: PageServer, tab: Page) -> None:
    tab.goto(f"{server.address}/#/queues")
    expect(tab.get_by_role("heading", name="predict", exact=True)).to_be_visible()
    expect(tab.get_by_role("heading", name="Workers")).to_be_visible()
    check_access(tab)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_loses_nothing(browser: Any, job: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme=scheme, reduced_motion="reduce")
    tab = context.new_page()
    for address in (job, job.partition("#")[0], re.sub("#.*", "#/queues", job)):
        tab.goto(address)
        tab.locator("h1").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") == 320
        check_access(tab)
    context.close()
