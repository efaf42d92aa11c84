"""The Compare page in a real browser: a square of a matrix leads to its images, and a full house stays usable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE
from tests.browser.test_app import open_page, serving, settle
from tests.making import LABELS, add_evaluation, draw_cell, make_config, make_entry, make_predictions
from zoo.entry import as_stored, write_predictions
from zoo.files import write_json
from zoo.scores import metrics
from zoo.scores.predictions import table_confusion

pytestmark = pytest.mark.browser
MODELS, BENCHMARKS, IMAGES = 20, 5, 3000
EIGHT = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"]


def fill(zoo: Path) -> None:
    """MODELS entries scored on BENCHMARKS sets of IMAGES cells: four sets of answers, given out in turn."""
    made = []
    for seed in range(4):
        table = as_stored(make_predictions(seed, EIGHT, IMAGES, IMAGES), EIGHT)
        record = {
            "title": "many cells",
            "labels": EIGHT,
            "confusion": table_confusion(table, EIGHT).tolist(),
            "metrics": metrics.as_dict(metrics.evaluate(table, EIGHT)),
            "n_images": IMAGES,
            "n_cells": IMAGES,
        }
        made.append((table, record))
    for number in range(MODELS):
        folder = zoo / f"full-{number:02}"
        folder.mkdir(parents=True)
        config = make_config("test_resnet", EIGHT) | {"num_classes": 8}
        config["zoo"]["title"] = f"Model {number:02}"
        write_json(folder / "config.json", config)
        turn = [made[(number + place) % 4] for place in range(BENCHMARKS)]
        names = [f"many-{place}" for place in range(BENCHMARKS)]
        for name, (table, _) in zip(names, turn, strict=True):
            write_predictions(folder, name, table, EIGHT)
        records = {name: record for name, (_, record) in zip(names, turn, strict=True)}
        write_json(folder / "evaluation.json", {"schema_version": 1, "benchmarks": records})


def fill_two(place: Path) -> Path:
    """Entries one and two in the zoo of a folder, scored on drawn pictures; returns the folder of these."""
    data = place / "drawn"
    data.mkdir()
    table = make_predictions(1)
    for file, label in zip(table["file"], table["label"], strict=True):
        draw_cell(label, 1, (64, 64)).save(data / file)
    for seed, name in enumerate(("one", "two")):
        entry = make_entry(place / "zoo" / name, "test_resnet", seed, recipe={"data": {"name": "drawn"}})
        add_evaluation(entry, seed)
    return data


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("full")
    fill(place / "zoo")
    data = fill_two(place)
    with serving(place, HEMAZOO_ZOO=str(place / "zoo"), HEMAZOO_DATASETS=str(data)) as found:
        yield found


def test_a_square_leads_to_its_images_and_they_to_their_maps(page: Page, address: str):
    open_page(page, f"{address}/compare?models=one&models=two&benchmark=drawn-test")
    area = page.locator(".js-plotly-plot .nsewdrag").first
    area.wait_for()
    settle(page)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 8, box["y"] + box["height"] / 8)  # true and predicted: the first class
    expect(page.get_by_text(f"of {LABELS[0]} classified as")).to_be_visible(timeout=PATIENCE)
    settle(page)
    page.get_by_role("button", name="Why?").first.click()
    expect(page.get_by_text("Grad-CAM for")).to_be_visible(timeout=PATIENCE)


def test_a_link_shows_the_same_view_to_others(page: Page, browser: Browser, address: str):
    open_page(page, f"{address}/compare?models=two&benchmark=drawn-test")
    page.get_by_role("tab", name="Calibration").click()
    expect(page.get_by_text("Accuracy on the most confident images").first).to_be_visible(timeout=PATIENCE)
    settle(page)
    other = browser.new_page()
    try:
        open_page(other, page.url)
        expect(other.get_by_text("Accuracy on the most confident images").first).to_be_visible(timeout=PATIENCE)
        expect(other.get_by_text("Tiny test_resnet (two)").first).to_be_visible()
    finally:
        other.close()


def test_a_full_house_stays_usable(page: Page, address: str, capsys: pytest.CaptureFixture[str]):
    """Twenty models on five benchmarks of 3,000 images: how long everything takes is printed, not asserted."""
    everything = "&".join(f"models=full-{number:02}" for number in range(MODELS))
    times: dict[str, float] = {}

    def timed(name: str, do: Callable[[], object]) -> None:
        start = time.perf_counter()
        do()
        page.wait_for_timeout(400)  # until the page shows that it works
        settle(page)
        times[name] = time.perf_counter() - start - 0.7  # of these waits

    def visit(where: str) -> None:
        page.goto(where)
        page.get_by_role("heading", level=1).first.wait_for()
        times.setdefault("first heading", time.perf_counter() - began)
        page.locator(".stDataFrame").first.wait_for()
        times.setdefault("leaderboard", time.perf_counter() - began)
        page.locator(".js-plotly-plot").nth(MODELS - 1).wait_for()

    began = time.perf_counter()
    timed("all matrices", lambda: visit(f"{address}/compare?{everything}&benchmark=many-0"))
    timed("counts instead of shares", lambda: page.get_by_role("radio", name="counts").click())
    for tab in ("ROC and PR", "All scores", "Agreement", "ROC and PR"):
        timed(f"tab {tab}", lambda tab=tab: page.get_by_role("tab", name=tab).click())
    timed("again", lambda: visit(page.url))
    assert not page.get_by_text("Traceback").count()
    with capsys.disabled():
        print(f"\n{MODELS} models, {BENCHMARKS} benchmarks, {IMAGES:,} images each, seconds:")
        print("\n".join(f"  {name}: {seconds:.1f}" for name, seconds in times.items()))
