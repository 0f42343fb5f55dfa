"""What the page says while something is wrong, and that it goes on by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from support.browser import FOLDER
from support.page_server import PageServer

SAMPLE = FOLDER / "samples" / "nuclei.tif"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LONG_MS = 60_000


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A server without a worker."""
    server = PageServer.make(tmp_path_factory.mktemp("page"))
    try:
        yield server.serve()
    finally:
        server.close()


def drop(tab: Page, server: PageServer) -> None:
    tab.goto(server.address)
    tab.locator("input[type=file]").first.set_input_files(SAMPLE)


def check_access(tab: Page) -> None:
    assert Axe().run(tab).response["violations"] == []


def test_a_job_without_a_worker_says_so_and_can_be_cancelled(server: PageServer, tab: Page) -> None:
    drop(tab, server)
    state = tab.get_by_test_id("state")
    expect(state).to_contain_text("place 1 of 1", timeout=LONG_MS)
    expect(state).to_contain_text(re.compile("worker", re.IGNORECASE))
    check_access(tab)
    tab.goto(f"{server.address}/#/queues")
    expect(tab.locator(".queue.bad, .queue.warn").first).to_be_visible()
    tab.go_back()
    tab.get_by_role("button", name="Cancel").click()
    expect(state).to_contain_text("Cancelled")
    check_access(tab)


def test_a_restarted_server_is_found_again(server: PageServer, tab: Page) -> None:
    tab.goto(server.address)
    tab.get_by_text("Recent").wait_for()
    tab.get_by_text("Images that you segment").wait_for()
    port = int(server.address.rpartition(":")[2])
    tab.locator("input[type=file]").first.wait_for(state="attached")
    tab.evaluate("import('/image.js')")  # as if the browser had it from an earlier visit
    server.stop("serve")
    tab.locator("input[type=file]").first.set_input_files(SAMPLE)
    expect(tab.get_by_test_id("state")).to_contain_text("Connection lost")
    check_access(tab)
    server.work().serve(port)
    expect(tab.get_by_test_id("objects")).to_be_visible(timeout=LONG_MS)


def test_an_expired_result_says_so(server: PageServer, tab: Page) -> None:
    server.work()
    drop(tab, server)
    expect(tab.get_by_test_id("objects")).to_be_visible(timeout=LONG_MS)
    shutil.rmtree(server.folder / "bucket" / "output")
    tab.reload()
    expect(tab.get_by_test_id("state")).to_contain_text("The result has expired")
    check_access(tab)
    tab.get_by_role("button", name="Run again").first.click()
    expect(tab.get_by_test_id("objects")).to_be_visible(timeout=LONG_MS)


def test_two_tabs_show_the_same_job(server: PageServer, tab: Page) -> None:
    drop(tab, server)
    expect(tab).to_have_url(re.compile("#/job/"), timeout=LONG_MS)
    other = tab.context.new_page()
    other.goto(tab.url)
    server.work()
    for each in (tab, other):
        expect(each.get_by_test_id("objects")).to_be_visible(timeout=LONG_MS)


def test_an_unavailable_redis_is_waited_for(server: PageServer, tab: Page) -> None:
    drop(tab, server)
    expect(tab.get_by_test_id("state")).to_contain_text("place 1 of 1", timeout=LONG_MS)
    server.redis.stop()
    tab.goto(f"{server.address}/#/batches")
    expect(tab.get_by_role("alert")).to_be_visible(timeout=LONG_MS)
    check_access(tab)


def test_a_token_signs_in_and_out(tmp_path_factory: pytest.TempPathFactory, tab: Page) -> None:
    folder = tmp_path_factory.mktemp("page")
    tokens = folder / "tokens.json"
    command = [sys.executable, "-m", "redis_consumer", "tokens", "new", "ada"]
    made = subprocess.run(command, env={**os.environ, "WEB_TOKENS": str(tokens)}, capture_output=True, text=True)
    token = max(made.stdout.split(), key=len)
    server = PageServer.make(folder, WEB_AUTH="token", WEB_TOKENS=str(tokens))
    try:
        tab.goto(server.serve().address)
        tab.get_by_label("Token").fill("wrong")
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.get_by_role("alert")).to_be_visible()
        check_access(tab)
        tab.get_by_label("Token").fill(token)
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.get_by_text("ada", exact=True)).to_be_visible()
        expect(tab.get_by_text("Drop an image")).to_be_visible()
        tab.get_by_role("button", name="Sign out").click()
        expect(tab.get_by_label("Token")).to_be_visible()
    finally:
        server.close()
