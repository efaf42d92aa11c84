"""The review in a real browser: a field is corrected by key, drag and menu, reported, saved and opened again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.test_app import open_page, serving, settle
from tests.fields import draw_field, make_detector

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("review")
    make_detector(place / "zoo" / "drawn")
    with serving(place, program="tests.fields", HEMAZOO_ZOO=str(place / "zoo"), HEMAZOO_DETECTOR="drawn") as address:
        yield address


def cell(page: Page, number: int) -> Locator:
    return page.get_by_role("option", name=re.compile(f"^Cell {number} of"))


def show_field(page: Page, address: str, picture: Path) -> None:
    open_page(page, address)
    page.locator("input[type=file]").first.set_input_files(str(picture))
    expect(cell(page, 4)).to_be_visible()
    settle(page)


def results(page: Page) -> pd.DataFrame:
    with page.expect_download() as download:
        page.get_by_role("button", name="Results as CSV").click()
    table = pd.read_csv(io.BytesIO(Path(download.value.path()).read_bytes()))
    return table[table["object"] == "white cell"].set_index("cell")


def test_a_field_is_corrected_reported_saved_and_opened_again(page: Page, address: str, tmp_path: Path):
    picture = tmp_path / "field.png"
    draw_field(0)[0].save(picture)
    show_field(page, address, picture)
    # a click on a box chooses its cell, a key corrects it and goes on to the next
    page.locator("svg g[data-id$='-2'] rect.hit").click()
    expect(cell(page, 2)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("6")
    expect(cell(page, 2)).to_have_attribute("aria-label", re.compile("blast, the model says"))
    expect(page.get_by_text("Given: blast.")).to_be_visible()
    # a drag onto a kind
    cell(page, 3).drag_to(page.get_by_role("button", name="smudge cell"))
    expect(cell(page, 3)).to_have_attribute("aria-label", re.compile("smudge cell, the model says"))
    # the menu of the chosen cell
    cell(page, 4).click()
    expect(page.get_by_text("Cell 4 of field.png")).to_be_visible()
    page.get_by_role("combobox", name="Correct to").click()
    page.keyboard.type("plasma")
    page.keyboard.press("Enter")
    settle(page)
    page.get_by_role("button", name="Correct", exact=True).click()
    expect(cell(page, 4)).to_have_attribute("aria-label", re.compile("plasma cell, the model says"))
    # undo by key
    page.get_by_role("listbox", name=re.compile("Cells by kind")).press("Control+z")
    expect(cell(page, 4)).not_to_have_attribute("aria-label", re.compile("plasma cell"))
    settle(page)
    table = results(page)
    assert table["label"][2] == "blast"
    assert table["label"][3] == "smudge cell"
    assert table["corrected"].tolist() == [False, True, True, False]
    # a reload keeps the work, under another token, and "Clear all" erases it
    address_before = page.url
    page.reload()
    expect(cell(page, 2)).to_have_attribute("aria-label", re.compile("blast, the model says"))
    settle(page)
    assert re.search(r"\?work=[0-9a-f]{32}$", page.url)
    assert page.url != address_before
    page.get_by_text("Save or open a review").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save review").click()
    saved = tmp_path / "review.zip"
    download.value.save_as(saved)
    kept_at = page.url
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_role("option")).to_have_count(0)
    open_page(page, kept_at)
    expect(page.get_by_role("option")).to_have_count(0)
    show_field(page, address, picture)
    expect(page.get_by_role("option", name=re.compile("the model says"))).to_have_count(0)
    page.get_by_text("Save or open a review").click()
    page.locator(".st-key-opened-review input[type=file]").set_input_files(str(saved))
    expect(cell(page, 2)).to_have_attribute("aria-label", re.compile("blast, the model says"))
    expect(page.get_by_role("option", name=re.compile("the model says"))).to_have_count(2)


def test_a_click_anywhere_in_a_row_chooses_its_cell(page: Page, address: str, tmp_path: Path):
    picture = tmp_path / "field.png"
    draw_field(2)[0].save(picture)
    show_field(page, address, picture)
    page.get_by_text("Table of cells").click()
    table = page.locator(".stDataFrame").first
    table.scroll_into_view_if_needed()
    settle(page)
    chosen = page.locator("[role=option][aria-selected=true]")
    seen = []
    for row in (1, 2):
        table.click(position={"x": 180, "y": 38 + 44 * (row + 0.5)})
        expect(chosen).to_have_count(1)
        settle(page)
        seen.append(chosen.get_attribute("aria-label"))
    assert len(set(seen)) == len(seen)
