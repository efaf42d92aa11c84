"""Answers, maps and tables on a telephone: what was asked for is seen at once, and texts have the whole width."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.browser.conftest import PATIENCE, PHONE
from tests.browser.test_app import open_page, serving, settle

pytestmark = pytest.mark.browser

AGENT = "Mozilla/5.0 (Linux; Android 14; Pixel 7) Mobile"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("telephone")) as address:
        yield address


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True, user_agent=AGENT)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def box(found: Locator) -> dict[str, float]:
    place = found.bounding_box()
    assert place is not None
    return dict(place)


def test_an_answer_stands_above_the_fold_and_its_map_has_texts_of_full_width(phone: Page, address: str):
    open_page(phone, address)
    phone.get_by_role("button", name="neutrophil", exact=True).click()
    answer = phone.get_by_role("heading", level=4).first
    answer.wait_for()
    settle(phone)
    assert box(answer)["y"] < PHONE["height"] / 2
    phone.get_by_role("link", name="See why").click()
    shown = phone.get_by_alt_text("Map of the evidence").first
    shown.wait_for()
    settle(phone)
    assert box(shown)["y"] + box(shown)["height"] < PHONE["height"]
    assert box(phone.get_by_text("says").first)["width"] > 0.75 * PHONE["width"]


def test_matrices_of_eight_classes_have_short_names(phone: Page, address: str):
    open_page(phone, f"{address}/compare?models=champion8&models=champion8-small")
    phone.locator(".js-plotly-plot").first.wait_for()
    phone.get_by_text("NEU: neutrophil").wait_for()


def test_the_camera_comes_first(phone: Page, address: str):
    open_page(phone, address)
    ways = phone.get_by_test_id("stButtonGroup").first.get_by_role("radio")
    assert ways.first.inner_text() == "Camera"
