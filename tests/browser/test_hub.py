"""A model's way from training to a visitor: published, listed, picked, renewed, held back, and still there offline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import constants
from playwright.sync_api import Error, Page, expect

from tests.browser.conftest import PATIENCE
from tests.browser.test_app import follow, open_page, serving, settle, upload
from tests.hub import serve
from tests.making import add_evaluation, draw_cell, make_entry
from training.cli import main
from zoo.entry import read_entry
from zoo.serving.runtime import Runtime

pytestmark = pytest.mark.browser
TITLE = "Tiny of the Hub"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process, which publishes as alice."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "publisher"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "publisher"))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


def train(folder: Path, seed: int) -> Path:
    """Stand-in for a training: an entry with other weights for each seed."""
    made = make_entry(folder / "tiny", "test_resnet", seed, title=TITLE)
    add_evaluation(made, seed)
    return made


def answer(folder: Path) -> str:
    with Runtime("cpu") as runtime:
        found = runtime.classify(read_entry(folder), draw_cell("monocyte", 1, (160, 160)))
    return f"{found.label} · {100 * found.confidence:.1f} %"


def renew(page: Page) -> None:
    follow(page, "Models", "Models")
    page.get_by_role("button", name="Refresh from the Hub").click()
    settle(page)


def choose(page: Page, box: str, option: str) -> None:
    # a long list shows only a part of itself: it is searched. A script that runs again may close it
    wanted = page.get_by_role("option", name=re.compile(f"^{option}")).first
    for _ in range(8):
        page.get_by_role("combobox", name=box).first.click()
        page.keyboard.type(option, delay=30)
        try:
            wanted.click(timeout=5000)
            break
        except Error:
            page.keyboard.press("Escape")
    settle(page)


def says(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=4)).to_have_text(text)


def test_from_publication_to_a_visitor_without_network(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cell = tmp_path / "cell.png"
    draw_cell("monocyte", 1, (160, 160)).save(cell)
    first, second = train(tmp_path / "first", 1), train(tmp_path / "second", 2)
    assert answer(first) != answer(second)
    secrets = tmp_path / "secrets.toml"
    secrets.write_text('HEMAZOO_ZOO = "hub:alice"\n')
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        told = {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "hf"), "HF_TOKEN": "", "HF_ENDPOINT": hub.url}
        app = serving(tmp_path, "--secrets.files", str(secrets), **told)
        with app as address:
            # nothing is there yet
            open_page(page, f"{address}/models")
            expect(page.get_by_text("Broken entries")).to_be_visible(timeout=PATIENCE)
            # published and listed
            assert main(["publish", str(first), "--repo", "alice", "--tag", "v1"]) == 0
            proved = hub.count("GET /cdn")
            renew(page)
            expect(page.get_by_text("listed just now")).to_be_visible(timeout=PATIENCE)
            assert hub.count("GET /cdn") == proved, "nothing but JSON came for the list"
            # chosen and used
            choose(page, "Model", TITLE)
            expect(page.get_by_text("From the Hub:")).to_be_visible()
            follow(page, "Classify with this model", "Classify")
            upload(page, [str(cell)])
            says(page, answer(first))
            # a new revision, without a new start
            assert main(["publish", str(second), "--repo", "alice/tiny", "--tag", "v2"]) == 0
            renew(page)
            follow(page, "Classify with this model", "Classify")
            says(page, answer(second))
            # the old one, held
            follow(page, "Models", "Models")
            page.get_by_text("Other revisions").click()
            settle(page)
            choose(page, "Revision", "tag v1")
            page.get_by_role("button", name="Use this revision").click()
            expect(page.get_by_text("chosen in this session")).to_be_visible()
            follow(page, "Classify with this model", "Classify")
            says(page, answer(first))
            # the network is gone
            hub.stop()
            renew(page)
            # the client tries some times before it gives up
            expect(page.get_by_text("Last listed")).to_be_visible(timeout=PATIENCE)
            follow(page, "Classify with this model", "Classify")
            says(page, answer(first))
            # and for somebody who comes now
            visitor = page.context.browser.new_page()
            open_page(visitor, address)
            choose(visitor, "Model", TITLE)
            upload(visitor, [str(cell)])
            says(visitor, answer(second))
            visitor.close()
