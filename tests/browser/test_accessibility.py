"""Every page in its main states by axe-core, light and dark, at a desk and on a telephone: nothing serious is found."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.conftest import PATIENCE, PHONE
from tests.browser.test_app import open_page, serving, settle, visit
from tests.browser.test_compare import fill_two
from tests.fields import draw_field, make_detector

pytestmark = pytest.mark.browser

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DESK = {"width": 1440, "height": 900}
SERIOUS = ("serious", "critical")
THUMB_PIXELS = 44
# Streamlit's own findings: rule and the element's CSS class or test id, with the reason. None is known.
OF_STREAMLIT: dict[tuple[str, str], str] = {}
FADED_IN = (
    "!document.querySelector('[data-stale=true]') "
    "&& document.getAnimations().every(one => one.playState !== 'running' || one.effect.getTiming().iterations > 1)"
)
OURS = ".stButton button, .stDownloadButton button, .stButtonGroup button, .stFileUploader button, summary"


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    place = tmp_path_factory.mktemp("axe")
    make_detector(place / "zoo" / "drawn")
    more = {"HEMAZOO_ZOO": str(place / "zoo"), "HEMAZOO_DETECTOR": "drawn", "HEMAZOO_DATASETS": str(fill_two(place))}
    with serving(place, program="tests.fields", **more) as address:
        context = browser.new_context(viewport=DESK, reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        open_page(page, address)
        yield page
        context.close()


def found(page: Page, state: str) -> list[str]:
    """Serious findings of a page as it is now, in light and dark, at a desk and on a telephone."""
    problems = []
    for scheme, size in itertools.product(SCHEMES, (DESK, PHONE)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size(size)
        settle(page)
        with suppress(Error):  # what is drawn again fades in, and is pale until then
            page.wait_for_function(FADED_IN, timeout=20_000)
        for one in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]:
            for node in one["nodes"]:
                known = any(rule == one["id"] and mark in node["html"] for rule, mark in OF_STREAMLIT)
                if one["impact"] in SERIOUS and not known:
                    problems.append(f"{state}, {scheme}, {size['width']}: {one['id']} {node['html'][:200]}")
    page.set_viewport_size(DESK)
    return problems


def small_targets(page: Page) -> list[str]:
    """Visible buttons that are lower than a thumb needs, on a telephone."""
    page.set_viewport_size(PHONE)
    settle(page)
    heights = page.locator(OURS).evaluate_all(
        "nodes => nodes.filter(n => n.offsetParent && n.dataset.testid !== 'stBaseButton-elementToolbar')"
        ".map(n => [n.innerText.slice(0, 40), n.getBoundingClientRect().height])"
    )
    page.set_viewport_size(DESK)
    assert heights
    return [text for text, height in heights if height < THUMB_PIXELS - 0.5]


def unfold(page: Page) -> None:
    """Open every fold of a page."""
    closed = page.locator("details:not([open]) > summary:visible")
    for _ in range(closed.count()):
        closed.first.click()
        settle(page)


def test_nothing_serious_on_any_page(page: Page, tmp_path: Path):
    problems = found(page, "Classify, empty")
    assert small_targets(page) == []
    bad, field = tmp_path / "text.png", tmp_path / "field.png"
    bad.write_text("no picture")
    draw_field(0)[0].save(field)
    page.locator("input[type=file]").first.set_input_files([str(field), str(bad)])
    expect(page.get_by_text("1 file could not be classified")).to_be_visible()
    expect(page.get_by_role("option").first).to_be_visible()
    problems += found(page, "Classify, results and an error")
    assert small_targets(page) == []
    visit(page, "explain")
    page.get_by_role("button", name="Map as PNG").first.wait_for()
    problems += found(page, "Explain, results")
    for name in ("Compare", "Models", "Systems", "Adapt", "Data", "Examples"):
        visit(page, name.lower())
        problems += found(page, name)
    assert not problems, "\n".join(problems)


def test_nothing_serious_where_folds_menus_and_dialogs_are_open(page: Page, tmp_path: Path):
    origin = re.match(r"https?://[^/]+", page.url)[0]
    open_page(page, origin)  # a new session
    field = tmp_path / "open.png"
    draw_field(1)[0].save(field)
    page.locator("input[type=file]").first.set_input_files(str(field))
    expect(page.get_by_role("option").first).to_be_visible()
    settle(page)
    unfold(page)
    page.get_by_alt_text("Known cell: ").first.wait_for()
    problems = found(page, "Classify, folds open")
    page.get_by_role("combobox", name="Correct to").click()
    problems += found(page, "Classify, a menu open")
    page.keyboard.press("Escape")
    for name in ("Models", "Adapt", "Data"):
        visit(page, name.lower())
        unfold(page)
        problems += found(page, f"{name}, folds open")
    page.goto(f"{origin}/compare?models=one&models=two&benchmark=drawn-test")
    area = page.locator(".js-plotly-plot .nsewdrag").first
    area.wait_for()
    settle(page)
    page.get_by_role("button", name="Markdown").first.click()
    problems += found(page, "Compare, a popover open")
    page.keyboard.press("Escape")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 8, box["y"] + box["height"] / 8)
    page.get_by_role("button", name="Why?").first.click()
    expect(page.get_by_role("dialog").get_by_text("Grad-CAM for")).to_be_visible()
    problems += found(page, "Compare, a dialog open")
    assert not problems, "\n".join(problems)
