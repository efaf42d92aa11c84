"""Long work in a real browser: it tells the time that is left, stops at once, keeps what is done, and goes on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_app import follow, open_page, serving, settle, visit
from tests.making import LABELS, draw_cell

pytestmark = pytest.mark.browser
MANY = 250


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, runs: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("long"), HEMAZOO_RUNS=str(runs)) as address:
        yield address


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        draw_cell(LABELS[number % 4], number, (160, 160)).save(folder / f"{number:03}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def test_a_classification_is_stopped_and_goes_on(page: Page, address: str, many: list[str]):
    open_page(page, address)
    page.locator("input[type=file]").first.set_input_files(many)
    expect(page.get_by_text(re.compile(rf"\d+ of {MANY} pictures classified · about \d+ s left"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    told = page.get_by_text(re.compile(rf"Stopped: \d+ of {MANY} pictures are left out"))
    expect(told).to_be_visible()
    left = int(re.findall(r"\d+", told.inner_text())[0])
    assert 0 < left < MANY
    expect(page.get_by_role("heading", name=f"{MANY - left} pictures")).to_be_visible()
    settle(page)
    visit(page, "explain")
    expect(page.get_by_text("pictures are left out")).to_be_visible()
    follow(page, "Classify", "Classify")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name=f"{MANY} pictures")).to_be_visible()
    expect(told).to_have_count(0)


def test_a_slow_map_is_stopped_and_goes_on(page: Page, address: str, many: list[str]):
    open_page(page, f"{address}/explain")
    page.locator("input[type=file]").first.set_input_files(many[0])
    page.get_by_role("button", name="Map as PNG").wait_for()
    settle(page)
    page.get_by_role("combobox", name="Method").click()
    page.keyboard.type("ScoreCAM")
    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop")
    stop.click()
    expect(page.get_by_text("ScoreCAM was stopped.")).to_be_visible()
    expect(stop).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("ScoreCAM was stopped.")).to_have_count(0)
    expect(stop).to_be_visible()


def write_run(runs: Path, step: int) -> None:
    """Write the state of a training run in progress."""
    (runs / "mine").mkdir(exist_ok=True)
    state = {"title": "Mine", "recipe": "x", "epoch": 3, "epochs": 10, "step": step, "steps": 1000}
    text = json.dumps(state | {"images_per_second": float(step), "updated": time.time()})
    (runs / "mine" / "run.json").write_text(text)


def test_a_run_is_followed_and_its_visitor_can_leave_at_any_moment(page: Page, address: str, runs: Path):
    write_run(runs, 100)
    open_page(page, f"{address}/models")
    expect(page.get_by_text("100 images per second")).to_be_visible()
    write_run(runs, 200)
    expect(page.get_by_text("200 images per second")).to_be_visible()
    for name in ("examples", "systems", "data") * 2:
        page.get_by_role("link", name="Models", exact=True).first.click()
        expect(page.get_by_text("images per second").first).to_be_visible()
        # leave while the page is renewed: each time at another moment
        page.wait_for_timeout(700 + 370 * len(name))
        visit(page, name)
        expect(page.get_by_role("heading", level=1)).not_to_have_text("Models")
        page.wait_for_timeout(1000)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text("Not a medical device").last).to_be_attached()
    visit(page, "models")
    (runs / "mine" / "run.json").unlink()
    expect(page.get_by_role("heading", name="In training")).to_have_count(0)
    expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
