"""Screenshots of the app: `PYTHONPATH=. python docs/screenshots.py` renews docs/classify.png.

`--all DIR` writes every page instead, at a desk and on a telephone, in light and dark. The pictures shown are the
examples that come with the program.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import PHONE
from tests.browser.test_app import PAGES, open_page, serving, settle, visit
from tests.conftest import find_browser

DESK, README = {"width": 1440, "height": 900}, {"width": 1180, "height": 1330}
TELEPHONE = {"is_mobile": True, "has_touch": True, "user_agent": "Mozilla/5.0 (Linux; Android 14; Pixel 7) Mobile"}
FIELD = "field 1"
FIGURES_MS = 3000  # until figures have drawn themselves
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="DIR", help="folder for every page, size and theme")
    options = parser.parse_args()
    executable = find_browser()
    if executable is None:
        parser.error("no Chrome or Chromium was found")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        with serving(Path(place), HEMAZOO_DETECTOR="cells", HEMAZOO_BACKEND="auto", OMP_NUM_THREADS="2") as address:
            if options.all:
                options.all.mkdir(parents=True, exist_ok=True)
                for scheme in SCHEMES:
                    for name, size in (("desk", DESK), ("phone", PHONE)):
                        show_pages(browser, address, size, scheme, options.all, name)
            else:
                page = opened(browser, address, README, "light")
                page.screenshot(path=str(Path(__file__).parent / "classify.png"))
        browser.close()


def opened(browser: Browser, address: str, size: dict, scheme: Literal["light", "dark"]) -> Page:
    """The Classify page with a field whose cells were found and named."""
    telephone = TELEPHONE if size == PHONE else {}
    context = browser.new_context(viewport=size, color_scheme=scheme, **telephone)
    context.set_default_timeout(120_000)
    page = context.new_page()
    open_page(page, address)
    page.get_by_role("button", name=FIELD, exact=True).click()
    page.get_by_role("option", name=re.compile("^Cell 1 of")).wait_for()
    settle(page)
    page.wait_for_timeout(FIGURES_MS)
    return page


def show_pages(
    browser: Browser, address: str, size: dict, scheme: Literal["light", "dark"], folder: Path, name: str
) -> None:
    """Write every page as a visitor with a field sees it."""
    page = opened(browser, address, size, scheme)
    for one in PAGES:
        if one:
            menu = page.get_by_test_id("stExpandSidebarButton")
            if menu.is_visible():  # a telephone has the pages behind it
                menu.click()
            visit(page, one)
            page.wait_for_timeout(FIGURES_MS)
        page.screenshot(path=str(folder / f"{one or 'classify'}-{name}-{scheme}.png"))
    page.context.close()


if __name__ == "__main__":
    main()
