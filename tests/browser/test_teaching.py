"""Cells of an archive in a real browser: reviewed by two readers, used to adapt a model, and classified by it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESK, PATIENCE
from tests.browser.test_app import open_page, serving, settle
from tests.making import draw_cell, make_entry

pytestmark = pytest.mark.browser
EACH = 5  # cells of a kind, the fewest that Adapt takes
KINDS = {"lymphocyte": "l", "monocyte": "m"}  # and their keys
CELLS = [(kind, number) for kind in KINDS for number in range(EACH)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("teaching")
    make_entry(place / "zoo" / "tiny", "cnn60", title="A tiny network")
    with serving(place, HEMAZOO_ZOO=str(place / "zoo"), HEMAZOO_DETECTOR="none") as address:
        yield address


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ZIP of drawn cells and one broken picture."""
    path = tmp_path_factory.mktemp("archive") / "cells.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number, (kind, seed) in enumerate(CELLS, 1):
            data = io.BytesIO()
            draw_cell(kind, seed, (120, 120)).save(data, "PNG")
            file.writestr(f"{number:02}.png", data.getvalue())
            if number == EACH:
                file.writestr("broken.png", data.getvalue()[:300])
    return path


def open_archive(page: Page, address: str, archive: Path) -> None:
    """Choose the tiny network and give it the archive."""
    open_page(page, address)
    page.get_by_role("combobox", name="Model").first.click()
    page.get_by_role("option", name="A tiny network").click()
    expect(page.get_by_text("4 classes. Accuracy not scored").first).to_be_visible()
    settle(page)  # Streamlit loses an upload that starts just as a run starts
    page.locator("input[type=file]").first.set_input_files(str(archive))
    expect(page.locator("[role=option][data-id]")).to_have_count(len(CELLS))
    settle(page)


def decide(page: Page, kinds: list[str]) -> None:
    """Give each cell a kind by its key."""
    for number, kind in enumerate(kinds, 1):
        one = page.locator(f"[role=option][aria-label*='{number:02}.png']")
        one.click()
        expect(one).to_have_attribute("aria-selected", "true")
        page.keyboard.press(KINDS[kind])
        expect(one).to_have_attribute("aria-label", re.compile(f"{kind}.*(the model says|approved)"))
    settle(page)


def save(page: Page, path: Path) -> None:
    page.get_by_text("Save or open a review").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save review").click()
    download.value.save_as(path)


def test_two_readers_dispute_one_cell_and_reviewed_cells_adapt_a_model(
    page: Page, browser: Browser, address: str, archive: Path, tmp_path: Path
):
    mine = [kind for kind, _ in CELLS]
    second = browser.new_context(viewport=DESK)
    second.set_default_timeout(PATIENCE)
    theirs = second.new_page()
    open_archive(theirs, address, archive)
    decide(theirs, ["monocyte", *mine[1:]])
    save(theirs, tmp_path / "theirs.zip")
    second.close()
    open_archive(page, address, archive)
    # the broken picture is named, and stops none of the others
    expect(page.get_by_text("1 file could not be classified")).to_be_visible()
    decide(page, mine)
    page.get_by_text("Compare with a second reader").click()
    page.locator("input[type=file][accept*=zip]").last.set_input_files(str(tmp_path / "theirs.zip"))
    expect(page.get_by_text(f"{len(CELLS) - 1} of {len(CELLS)} cells agree")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Cohen's kappa 0\.80 \(95 %"))).to_be_visible()
    expect(page.get_by_text("1 in dispute")).to_be_visible()
    # what was reviewed is taught
    page.get_by_role("link", name="Adapt", exact=True).first.click()
    expect(page.get_by_text(f"Use {len(CELLS)} cells that you reviewed on Classify")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Adapt", exact=True).click()
    expect(page.get_by_text("cross-validated")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Classify with it").click()
    # the same pictures, answered by the new model; what was decided stays
    expect(page.get_by_role("combobox", name="Model").first).to_have_value(re.compile("my-lab"))
    expect(page.locator("[role=option][data-id]")).to_have_count(len(CELLS))
    settle(page)
    assert page.locator("[role=option][aria-label*='lymphocyte']").count() >= EACH
