"""A headless Chromium for tests of pages: Debian's package chromium, or any other on the PATH, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@contextmanager
def browser() -> Iterator[Any]:
    """Skips the test where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=QUIET)
        try:
            yield started
        finally:
            started.close()
