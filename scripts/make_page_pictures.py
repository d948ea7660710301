"""Draw the pictures of the server's page: a question about the bundled video, in a real Chromium.

    .venv/bin/python scripts/make_page_pictures.py [DIR]

Starts a server of its own and writes page.png (a laptop) and page-phone.png into docs/images, or
DIR; with DIR also the other ones: dark and light, while it is read, the first page.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import LAPTOP, PHONE, executable  # noqa: E402

DEMO = ROOT / "models" / "tiny" / "demo.mp4"
QUESTIONS = ("What number is on the red card?", "When does the green card appear?")
WAIT_MS = 120_000


@contextmanager
def server(cache: str) -> Iterator[str]:
    """Run a server; yield its address."""
    options = ["-m", "tiny", "--port", "0", "--keep-ratio", "0.25", "--cache-dir", cache]
    options += ["--media-path", str(DEMO.parent)]
    command = [sys.executable, "-m", "retake_edge", "serve", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(line.split()[-1] for line in process.stderr if " at http" in line)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Write the pictures."""
    only_docs = len(sys.argv) < 2
    folder = ROOT / "docs" / "images" if only_docs else Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)

    def shot(page: Page, name: str, *, for_docs: bool = False) -> None:
        if for_docs or not only_docs:
            page.wait_for_timeout(400)
            page.screenshot(path=folder / f"{name}.png")

    with tempfile.TemporaryDirectory() as cache, server(cache) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        page = browser.new_page(viewport=LAPTOP)
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        page.click("text=Choose on the server")
        page.wait_for_selector(".files li")
        shot(page, "first")
        page.set_input_files("input[type=file]", DEMO)
        page.wait_for_selector(".reading progress[value]")
        shot(page, "reading")
        page.wait_for_selector(".timeline .strip img")
        for question in QUESTIONS:
            if page.locator(".talk header button:not(.quiet)").is_visible():
                page.click(".talk header button:not(.quiet)")
            page.fill("#question", question)
            page.keyboard.press("Enter")
            page.wait_for_selector(f".turns .turn:has-text('{question}') .evidence")
        page.click(".turns .turn .time")
        page.wait_for_timeout(300)
        page.evaluate("document.querySelector('video').pause()")
        page.mouse.move(0, 0)
        shot(page, "page", for_docs=True)
        for name, size in (("page", LAPTOP), ("page-phone", PHONE)):
            page.set_viewport_size(size)
            for scheme in ("dark", "light"):
                page.emulate_media(color_scheme=scheme)
                shot(page, f"{name}-{scheme}")
        shot(page, "page-phone", for_docs=True)
        browser.close()


if __name__ == "__main__":
    main()
