"""The main job in a real browser, against the real server: upload, class, map, comparison; at a desk and on a phone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests.browser.conftest import DESK, PATIENCE, PHONE
from tests.making import LABELS, draw_cell, draw_folder, make_report
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import MODEL, get_entry

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PAGES = ["", "explain", "compare", "models", "systems", "adapt", "data", "examples"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("app")) as address:
        yield address


@contextmanager
def serving(place: Path, *options: str, program: str = "streamlit", **more: str) -> Iterator[str]:
    """The app as `make demo` starts it, with the built-in zoo and a folder of drawn examples; `more` is environment."""
    port = free_port()
    environment = {
        **os.environ,
        "HEMAZOO_EXAMPLES": str(draw_folder(place / "examples", 1)),
        "HEMAZOO_CACHE": str(place / "cache"),
        "HEMAZOO_REPORTS": str(make_report(place / "report", 17_000)),
    }
    environment = {k: v for k, v in environment.items() if k != "HEMAZOO_ZOO"} | more
    command = [sys.executable, "-m", program, "run", "app.py", "--server.port", str(port)]
    with (place / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--server.address", "127.0.0.1", *options], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        assert "Traceback" not in (place / "log").read_text()


def wait_until_healthy(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError("the app did not start")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("cells")
    paths = []
    for label in LABELS:
        paths.append(folder / f"{label}.png")
        draw_cell(label, 1, (160, 160)).save(paths[-1])
    return [str(path) for path in paths]


def settle(page: Page) -> None:
    """Wait until the page's script is done, and no other run was asked for meanwhile.

    On a busy machine a part of a page that renews itself may run all the time: it is not waited for.
    """
    done = "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
    for _ in range(2):
        with suppress(Error):
            page.wait_for_function(done, timeout=20_000)
        page.wait_for_timeout(150)


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).first.wait_for()
    settle(page)


def upload(page: Page, files: list[str]) -> None:
    page.locator("input[type=file]").first.set_input_files(files)
    page.get_by_text("See why").wait_for()
    settle(page)


def visit(page: Page, name: str) -> None:
    """Go to a page, "" for the first, by the navigation."""
    address = re.compile(rf"/{name}(\?|$)")
    click_until(
        page,
        page.get_by_role("link", name=name.capitalize() or "Classify", exact=True).first,
        lambda: page.wait_for_url(address, timeout=8000, wait_until="commit"),
    )
    expect(page).to_have_url(address)


def follow(page: Page, name: str, heading: str) -> None:
    """Follow a link of a page to the page with a heading."""
    there = page.get_by_role("heading", name=heading).first
    click_until(page, page.get_by_role("link", name=name, exact=True).first, lambda: there.wait_for(timeout=8000))
    there.wait_for()


def click_until(page: Page, link: Locator, arrived: Callable[[], object]) -> None:
    """Click a link, which may be drawn anew at the moment of a click, until `arrived` raises no error."""
    for _ in range(8):
        with suppress(Error):
            link.click(timeout=8000)
        with suppress(Error):
            arrived()
            break
        settle(page)
    settle(page)


def described(label: str) -> str:
    """A class as the default model describes it."""
    return get_entry(MODEL).config.label_descriptions.get(label, label)


def named(label: str) -> str:
    """A class of the default model, written out."""
    return get_entry(MODEL).class_names[label]


def test_the_very_first_visitor_may_open_any_page(page: Page, tmp_path: Path):
    """Streamlit's old multipage mode must not serve a page without app.py."""
    with serving(tmp_path) as address:
        open_page(page, f"{address}/compare")
        expect(page.get_by_role("heading", level=1)).to_have_text("Compare models")
        expect(page.get_by_text("Not a medical device").last).to_be_attached()
        expect(page.get_by_role("link", name="parts")).to_have_count(0)
        expect(page).to_have_url(re.compile(r"/compare\?models="))


def test_the_first_visitors_may_come_together(browser: Browser, tmp_path: Path):
    with serving(tmp_path) as address:
        visitors = [browser.new_page(viewport=DESK) for _ in range(3)]
        for visitor in visitors:
            visitor.goto(f"{address}/models", wait_until="commit")
        for visitor in visitors:
            expect(visitor.get_by_role("heading", name="Models", exact=True)).to_be_visible(timeout=PATIENCE)
            expect(visitor.get_by_role("link", name="Compare").first).to_be_attached(timeout=PATIENCE)
            visitor.close()


def test_upload_class_map_and_comparison(page: Page, address: str, files: list[str], tmp_path: Path):
    open_page(page, address)
    upload(page, files[:1])
    with Runtime("cpu") as runtime:
        expected = runtime.classify(get_entry(MODEL), draw_cell(LABELS[0], 1, (160, 160)))
    expect(page.get_by_role("heading", level=4)).to_contain_text(described(expected.label))
    with page.expect_download() as download:
        page.get_by_role("button", name="Result as CSV").click()
    row = Path(download.value.path()).read_text().splitlines()[1]
    assert row.startswith(f"eosinophil.png,{expected.label},")
    follow(page, "Explain", "Explain a classification")
    page.get_by_text("says").first.wait_for()
    images = page.get_by_test_id("stImage").locator("img")
    assert images.count() >= 3  # the picture, its overlay, the scale
    with page.expect_download() as download:
        page.get_by_role("button", name="Map as PNG").first.click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    follow(page, "Compare", "Compare models")
    page.get_by_role("heading", name="Confusion matrices").wait_for()
    # the two matrices, their difference, and the classes
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 4")
    expect(page.get_by_text("minus").first).to_be_visible()


def test_pages_at_rest_ask_for_nothing(browser: Browser, address: str):
    """A part that renews itself while its visitor goes to another page can leave the browser with an empty one."""
    context = browser.new_context(viewport=DESK)
    context.set_default_timeout(PATIENCE)
    sent: dict[str, list[object]] = {}
    for name in PAGES:
        page, frames = context.new_page(), sent.setdefault(name, [])
        page.on("websocket", lambda socket, kept=frames: socket.on("framesent", lambda _: kept.append(None)))
        open_page(page, f"{address}/{name}")
        settle(page)
    before = {name: len(frames) for name, frames in sent.items()}
    page.wait_for_timeout(4000)
    context.close()
    assert all(before.values())
    assert {name: len(frames) for name, frames in sent.items()} == before


def test_ten_at_once_get_each_their_own(browser: Browser, address: str, tmp_path: Path):
    """Ten people, another picture each, at the same moment: class and map are those of their own picture."""
    entry = get_entry(MODEL)
    drawn = {f"mine{n}.png": draw_cell(LABELS[n % 4], 40 + n, (150 + 4 * n, 160)) for n in range(10)}
    with Runtime("cpu") as runtime:
        expected = {name: runtime.classify(entry, image) for name, image in drawn.items()}
    visitors = []
    for name, image in drawn.items():
        image.save(tmp_path / name)
        context = browser.new_context(viewport=DESK)
        context.set_default_timeout(2 * PATIENCE)
        visitors.append((name, context.new_page()))
    for _, visitor in visitors:
        visitor.goto(address, wait_until="commit")
    for _, visitor in visitors:
        visitor.get_by_role("heading", level=1).first.wait_for()
    for name, visitor in visitors:
        visitor.locator("input[type=file]").first.set_input_files(str(tmp_path / name))
    for name, visitor in visitors:
        found = expected[name]
        expect(visitor.get_by_role("heading", level=4)).to_contain_text(described(found.label), timeout=2 * PATIENCE)
        shown = float(visitor.get_by_role("heading", level=4).inner_text().split("·")[1].strip().split(" ")[0])
        assert abs(shown - 100 * found.confidence) < 1.5
        expect(visitor.get_by_text(f"{name}, {drawn[name].width}×160")).to_be_visible(timeout=PATIENCE)
    for _, visitor in visitors:
        visitor.get_by_role("link", name="Explain", exact=True).first.click()
    for name, visitor in visitors:
        visitor.get_by_role("button", name="Map as PNG").first.wait_for()
        expect(visitor.get_by_text(f"{name}, {drawn[name].width}×160")).to_be_visible(timeout=PATIENCE)
        expect(visitor.get_by_text("says").first).to_contain_text(named(expected[name].label), timeout=PATIENCE)
    for _, visitor in visitors:
        visitor.context.close()


def test_several_pictures_and_one_that_is_none(page: Page, address: str, files: list[str], tmp_path: Path):
    bad = tmp_path / "text.png"
    bad.write_text("no picture")
    open_page(page, address)
    board = tmp_path / "board.png"
    squares = np.indices((160, 160)).sum(0) // 20 % 2 * 255
    Image.fromarray(squares.astype(np.uint8)).convert("RGB").save(board)
    upload(page, [*files, str(bad), str(board)])
    expect(page.get_by_text("1 file could not be classified")).to_be_visible()
    expect(page.get_by_role("heading", name="5 pictures")).to_be_visible()
    # a pattern is like no cell, and counted only if somebody wants it; noise looks a little like one, and is marked
    expect(page.get_by_text("show no recognisable blood cell").first).to_be_visible()
    expect(page.get_by_text("Count them anyway")).to_be_visible()
    expect(page.get_by_role("heading", name="Report")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Results as CSV").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 6


def test_the_model_stays_picked(page: Page, address: str, files: list[str]):
    open_page(page, address)
    page.get_by_role("combobox", name="Model").first.click()
    page.get_by_role("option", name="BCCD, 4 white cells, EfficientNet-Lite0").click()
    expect(page.get_by_text("4 classes. Accuracy").first).to_be_visible()
    follow(page, "Explain", "Explain a classification")
    expect(page.get_by_text("4 classes. Accuracy").first).to_be_visible()


def test_a_sample_is_chosen_on_classify(page: Page, address: str, files: list[str], tmp_path: Path):
    """Without the network's own answer among the kinds, another one is named, and both stand in the download."""
    with Runtime("cpu") as runtime:
        network = runtime.classify(get_entry(MODEL), draw_cell(LABELS[0], 1, (160, 160))).network_label
    kinds = [label for label in ("basophil", "monocyte", "neutrophil") if label != network][:2]
    open_page(page, address)
    upload(page, files[:1])
    page.get_by_role("combobox", name="Sample").first.click()
    page.get_by_role("option", name="Only these kinds").click()
    expect(page.get_by_text("Choose the kinds that the sample holds").first).to_be_visible()
    for kind in kinds:
        page.get_by_role("combobox", name="Kinds").first.click()
        page.get_by_role("option", name=named(kind), exact=True).click()
        settle(page)
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("stMultiSelect").get_by_text(named(kind), exact=True)).to_be_visible()
    expect(page.get_by_text(f"the network alone says {named(network)}").first).to_be_visible()
    wanted = f"only these kinds: {', '.join(kinds)}"
    for _ in range(60):  # until the page's script has made the file anew
        with page.expect_download() as download:
            page.get_by_role("button", name="Result as CSV").click()
        (row,) = pd.read_csv(download.value.path()).to_dict("records")
        if row["sample"] == wanted:
            break
        page.wait_for_timeout(500)
    assert row["sample"] == wanted
    assert row["label"] in kinds
    assert row["network: " + network] == max(value for key, value in row.items() if key.startswith("network: "))
    assert abs(sum(row[kind] for kind in kinds) - 1) < 1e-6
    follow(page, "Explain", "Explain a classification")
    expect(page.get_by_text(f"the network alone says {named(network)}").first).to_be_visible()


def test_examples_go_to_classify(page: Page, address: str):
    open_page(page, f"{address}/examples")
    page.get_by_role("button", name="Classify all 4").click()
    page.get_by_role("heading", name="4 pictures").wait_for()


def test_an_audit_of_17000_pictures(page: Page, address: str):
    """The map draws them all, a box shows the pictures behind it, and every view opens."""
    open_page(page, f"{address}/data")
    expect(page.get_by_text("17,000 pictures show").first).to_be_visible()
    for view, text in (
        ("Copies", "3 pictures"),
        ("Suspects", "Likely label errors"),
        ("Shortcuts", "Alarm: mean colour"),
    ):
        page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True).click()
        page.get_by_text(text).first.wait_for()
        settle(page)
    page.get_by_test_id("stButtonGroup").get_by_text("Map", exact=True).click()
    page.get_by_text("Nothing is selected").wait_for()
    plot = page.locator(".nsewdrag").first
    plot.wait_for()
    box = plot.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 60, steps=5)
    page.mouse.up()
    page.get_by_text("selected", exact=False).first.wait_for()
    expect(page.locator(".sheet img").first).to_be_visible()
    assert page.locator(".sheet img").count() == 24


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone(browser: Browser, address: str, files: list[str], name: str, scheme: str):
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        open_page(page, f"{address}/{name}")
        if name in ("", "explain"):
            page.locator("input[type=file]").first.set_input_files(files[:2])
            page.get_by_text("says" if name else "See why").first.wait_for()
            settle(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= innerWidth")
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 29)"}[scheme]
        expect(page.get_by_text("Not a medical device").last).to_be_attached()
    finally:
        context.close()


def test_two_sessions_do_not_see_each_other(browser: Browser, address: str, files: list[str]):
    pages = []
    for number in range(2):
        context = browser.new_context(viewport=DESK)
        context.set_default_timeout(PATIENCE)
        pages.append(context.new_page())
        open_page(pages[-1], address)
        pages[-1].locator("input[type=file]").first.set_input_files(files[number : number + 1])
    for number, page in enumerate(pages):
        page.get_by_text("See why").wait_for()
        expect(page.get_by_text(f"{LABELS[number]}.png, 160×160")).to_be_visible()
        expect(page.get_by_text(f"{LABELS[1 - number]}.png, 160×160")).to_have_count(0)
        page.context.close()


def test_a_folder_is_uploaded_with_its_class_folders(page: Page, address: str, tmp_path: Path):
    folder = draw_folder(tmp_path / "lab", 1, names={"monocyte": "Monócitos", "neutrophil": "SNE"})
    (folder / ".DS_Store").write_text("x")
    open_page(page, f"{address}/adapt")
    page.locator("input[webkitdirectory]").set_input_files(str(folder))
    settle(page)
    expect(page.get_by_text("Layout: class folders; the folders Monócitos, SNE, eosinophil")).to_be_visible(
        timeout=PATIENCE
    )
    expect(page.get_by_text("Labels: SNE (1) → neutrophil.")).to_be_visible()
    expect(page.get_by_text("4 more of")).to_be_visible()
