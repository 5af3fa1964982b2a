"""The tool as a person sees it: a real Open WebUI in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.ask_endpoint import MODEL

from .openwebui import ORDER, TOOL, OpenWebUI, User

pytestmark = pytest.mark.timeout(900)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
PATIENCE = 120_000
"""Milliseconds."""
COUNT = "import time\nfor n in range(40): print(n * 111, flush=True); time.sleep(0.5)"
PLOT = (
    "import numpy as np; import matplotlib.pyplot as plt; x = np.linspace(0, 12, 300)"
    "; plt.plot(x, np.sin(x) * x); plt.show()"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or whatever there is."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program is not None, "a browser is needed: `make browser` installs one on Debian and Ubuntu, as root"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, webui: OpenWebUI, user: User) -> Iterator[Page]:
    """The page of somebody who has signed in, with the tool chosen."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{webui.url}/auth")
    page.fill("input[type=email]", "somebody@example.org")
    page.fill("input[type=password]", "a password")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chat-input")
    page.goto(f"{webui.url}/?models={MODEL}&tools={TOOL}")
    page.wait_for_selector("#chat-input")
    news = page.get_by_text("Let's Go")
    page.wait_for_timeout(2000)  # the news of this version may come over the page
    if news.count():
        news.first.click()
    yield page
    page.close()


def send(page: Page, code: str) -> None:
    """Type a message that has the code run, and send it."""
    page.click("#chat-input")
    page.keyboard.insert_text(f"{ORDER}run_python_code: {code}")
    page.click("#send-message-button")


def test_output_is_live_and_stop_stops(page: Page, pictures: Path) -> None:
    send(page, COUNT)
    chip = page.locator("button", has_text="Python").last
    chip.wait_for()
    opened = page.get_by_text("Code Execution: Python")
    while not opened.count():  # before there is output the chip is not open to a click
        chip.click()
        page.wait_for_timeout(500)
    page.wait_for_function("document.body.innerText.includes('111 222')", timeout=PATIENCE)
    assert "4329" not in page.inner_text("body"), "the cell still runs"
    page.screenshot(path=pictures / "openwebui-live.png")
    page.wait_for_function("document.body.innerText.includes('666 777')", timeout=PATIENCE)
    page.keyboard.press("Escape")
    page.get_by_label("Stop").last.click()
    page.wait_for_selector("#send-message-button, [aria-label='Voice mode']")
    page.wait_for_timeout(1000)
    page.screenshot(path=pictures / "openwebui-stopped.png")
    send(page, "print(n < 39, n * 1000 >= 7000)")
    page.get_by_text("True True").last.wait_for()


def test_a_plot_is_in_the_message_and_there_again(page: Page, pictures: Path) -> None:
    send(page, PLOT)
    plot = page.locator("img[src*='/api/v1/files/']").last
    plot.wait_for()
    page.wait_for_function("[...document.images].some(one => one.src.includes('/files/') && one.naturalWidth > 300)")
    page.get_by_text("Done after").last.wait_for()
    page.screenshot(path=pictures / "openwebui-plot.png")
    page.reload()
    page.wait_for_function("[...document.images].some(one => one.src.includes('/files/') && one.naturalWidth > 300)")
    page.screenshot(path=pictures / "openwebui-reopened.png")
