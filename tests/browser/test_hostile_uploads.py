"""Pictures made to exhaust the machine, uploaded to the running app while two other visitors classify cells."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESK, PATIENCE
from tests.browser.test_app import open_page, serving, settle
from tests.making import LABELS, draw_cell
from tests.zoo.imaging.bombs import BOMBS, write_bombs

pytestmark = [pytest.mark.browser, pytest.mark.artefacts]

GROWTH = 1.05  # memory afterwards over memory before


def server_of(address: str) -> psutil.Process:
    port = int(address.rsplit(":", 1)[1])
    return next(
        process
        for process in psutil.Process().children(recursive=True)
        if any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))
    )


def visit(browser: Browser, address: str) -> Page:
    context = browser.new_context(viewport=DESK)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    open_page(page, address)
    return page


def clear(page: Page) -> None:
    settle(page)
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text("Drop pictures above").wait_for()


def classify(page: Page, folder: Path, number: int) -> str:
    """Upload a new cell to a cleared page; returns the answer's heading."""
    if page.get_by_role("button", name="Clear all").count():
        clear(page)
    path = folder / f"{number}.png"
    draw_cell(LABELS[number % len(LABELS)], number, (160, 160)).save(path)
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.get_by_text("See why").wait_for()
    settle(page)
    return page.get_by_text(path.name).first.inner_text()


def test_hostile_uploads_disturb_nobody(browser: Browser, tmp_path: Path):
    folder = tmp_path / "bombs"
    folder.mkdir()
    bombs = write_bombs(folder)
    with serving(tmp_path) as address:
        server = server_of(address)
        peak = [0]
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.2):
                family = [server, *server.children(recursive=True)]
                peak[0] = max(peak[0], sum(resident(process) for process in family))

        visitors = [visit(browser, address) for _ in range(2)]
        for number, visitor in enumerate(visitors):
            classify(visitor, tmp_path, number)
        attacker = visit(browser, address)
        classify(attacker, tmp_path, 2)
        # once before: what the first odd files need is imported and stays, some 75 MB
        attacker.locator("input[type=file]").first.set_input_files([str(path) for path in bombs])
        expect(attacker.get_by_text("could not be classified")).to_be_visible()
        clear(attacker)
        before = resident(server)
        watcher = threading.Thread(target=watch)
        watcher.start()
        attacker.locator("input[type=file]").first.set_input_files([str(path) for path in bombs])
        for number in range(4, 10):
            visitor = visitors[number % 2]
            assert f"{number}.png" in classify(visitor, tmp_path, number)
            expect(visitor.get_by_text("could not be classified")).to_have_count(0)
        expect(attacker.get_by_text("could not be classified")).to_be_visible(timeout=PATIENCE)
        settle(attacker)
        stop.set()
        watcher.join()
        clear(attacker)
        after = resident(server)
        print(f"{len(BOMBS)} bombs; MB before {before / 1e6:.0f}, after {after / 1e6:.0f}, peak {peak[0] / 1e6:.0f}")
        assert after < GROWTH * before
        assert peak[0] < before + 1_000_000_000  # with all decode workers


def resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
