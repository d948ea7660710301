"""A real Chromium, the system's own, driven by playwright: what the browser tests need."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 30
LAPTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


def executable() -> str:
    """Return the browser's path: RETAKE_BROWSER, or the first that is installed."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    path = os.environ.get("RETAKE_BROWSER") or found
    assert path, f"no browser: install one of {', '.join(NAMES)}, or set RETAKE_BROWSER"
    return path


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a headless browser, and end it afterwards."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        made = playwright.chromium.launch(executable_path=executable(), args=options)
        try:
            yield made
        finally:
            made.close()


class Watched:
    """What a page asked for, and what went wrong in it, but for a key that was missing."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._take)

    def _take(self, line: ConsoleMessage) -> None:
        if line.type in ("error", "warning") and "status of 401" not in line.text:
            self.faults.append(line.text)


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true; the pages' policies forbid what playwright has for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def sticking_out(page: Page) -> list[str]:
    """Return what is wider than the window; the page itself must not be scrolled sideways."""
    wide = (
        "[document.documentElement, document.body, document.querySelector('main')]"
        ".filter(e => e.scrollWidth > e.clientWidth).map(e => e.tagName)"
    )
    found: list[str] = page.evaluate(wide)
    return found


def findings(page: Page) -> list[str]:
    """Return what axe finds wrong, by rule and element."""
    violations: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in violations for node in one["nodes"]]
