"""The browser of tests and benchmarks: a headless Chromium that plays a film as its camera."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
START_MS = 180_000  # on a busy machine


def launch(driver: "Playwright", film: Path) -> "Browser":
    """Start Chromium; it repeats `film`, concatenated JPEGs, as its camera and allows every page to use it."""
    camera = f"--use-file-for-fake-video-capture={film}"
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", camera]
    arguments = ["--no-sandbox", "--disable-gpu", *flags]
    return driver.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=START_MS)


@contextmanager
def browser_or_skip(film: Path) -> Iterator["Browser"]:
    """Chromium with `film` as its camera for the block; without Chromium or Playwright, the test is skipped."""
    import pytest  # benchmarks and docs/record_demo.py use this module without it

    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} does not exist: apt-get install chromium, or set CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = launch(driver, film)
        yield browser
        browser.close()


def choose_video(page: "Page", film: Path) -> None:
    """Upload a film in the demo's video tab."""
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("input[data-testid=file-upload]", film)
    page.locator(f".file-preview [aria-label='{film.name}']").wait_for()
