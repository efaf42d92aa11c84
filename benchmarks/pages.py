"""Seconds that a visitor of the app waits, in a browser: pages, answers, corrections, and many visitors at once.

    python benchmarks/pages.py [--rounds N] [--visitors N] [--json]

The app is started anew in every round; printed are medians over rounds, in seconds, and the slowest. Pictures are the
bundled examples, changed a little each time, so that no answer was kept. Needs Chrome or Chromium.
- `server`, `first page`: from the start of the server until it answers, and until Classify can be used (goal: 5);
  `further visitor`: the page of another visitor (1.5);
- `first answer`, `next answer`: from the upload of a cell until its answer is read (1 and 0.3); `40 cells`: until all
  are listed (1.2); `field`: until the cells of a field are shown (1);
- `correction`: from the key to the cell's new name (0.2); `explanation`: until the map is shown (0.8);
- `Compare` (1.5), `Models`, `Data` (1): from the click to the page at rest;
- `visitors`, `slow visitors`: median and 90th percentile from upload to answers of visitors who come within
  30 seconds, each with another field (6); `wrong`: visitors who were shown another kind than one alone was, or
  another's file.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "HEMAZOO_ZOO"}  # before tests set theirs
sys.path.insert(0, str(ROOT))

from tests.conftest import find_browser  # noqa: E402
from zoo.sources.examples import bundled_examples  # noqa: E402

DESK = {"width": 1440, "height": 900}
PATIENCE = 120_000  # milliseconds
SPAN = 30.0  # seconds within which visitors come
COUNTER = itertools.count(1)
CELL = re.compile(r"\.jpg: ")  # names of the cells in the gallery


def changed(picture: Image.Image) -> bytes:
    """A picture as JPEG with slightly other pixels each time."""
    noise = np.random.default_rng(next(COUNTER)).integers(-2, 3, (picture.height, picture.width, 3))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def upload(page: Page, files: dict[str, bytes]) -> None:
    """Hand files to the page."""
    given = [{"name": name, "mimeType": "image/jpeg", "buffer": content} for name, content in files.items()]
    page.locator("input[type=file]").first.set_input_files(given)


@contextmanager
def server(place: Path) -> Iterator[tuple[str, float]]:
    """The app's address, and when it was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    begin = time.monotonic()
    with (place / "log").open("w") as log:
        app = subprocess.Popen(
            [*command, "--server.address", "127.0.0.1"], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}", begin
    finally:
        app.terminate()
        try:
            app.wait(20)
        except subprocess.TimeoutExpired:
            app.kill()


def healthy(address: str) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def at_rest(page: Page) -> None:
    """Wait until the page's script is done."""
    page.wait_for_function("document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'")


def opened(browser: Browser, address: str) -> Page:
    """A new visitor's page, ready for pictures."""
    page = browser.new_page(viewport=DESK)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("combobox", name="Model").first.wait_for()
    return page


def clear(page: Page) -> None:
    """Take all pictures away."""
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text("Drop pictures above").wait_for()
    at_rest(page)


def walk(browser: Browser, place: Path) -> dict[str, float]:
    """Start the app and do a visitor's work once."""
    pictures = {example.name: Image.open(example.path).convert("RGB") for example in bundled_examples() if example.path}
    cell, field = pictures["neutrophil.jpg"], pictures["field-1.jpg"]
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.monotonic()
        work()
        found[name] = time.monotonic() - start

    with server(place) as (address, begin):
        while not healthy(address):
            time.sleep(0.02)
        found["server"] = time.monotonic() - begin
        page = opened(browser, address)
        found["first page"] = time.monotonic() - begin
        timed("further visitor", lambda: opened(browser, address).close())
        options = page.get_by_role("option", name=CELL)

        def answers(files: dict[str, bytes], count: int) -> None:
            upload(page, files)
            options.nth(count - 1).wait_for()

        def answer(file: dict[str, bytes]) -> None:
            upload(page, file)
            page.get_by_role("heading", level=4).first.wait_for()

        at_rest(page)
        for name in ("first answer", "next answer"):
            timed(name, lambda: answer({"cell.jpg": changed(cell)}))
            at_rest(page)
            clear(page)
        many = {f"{number}.jpg": changed(cell) for number in range(40)}
        timed("40 cells", lambda: answers(many, 40))
        at_rest(page)
        options.first.click()
        at_rest(page)

        def correct() -> None:
            page.keyboard.press("6")
            page.get_by_role("option", name=re.compile("the model says")).first.wait_for()

        timed("correction", correct)
        at_rest(page)
        clear(page)
        timed("field", lambda: answer({"field.jpg": changed(field)}))
        at_rest(page)
        timed("explanation", lambda: visit(page, "Explain", page.get_by_text("says").first.wait_for))
        for name in ("Compare", "Models", "Data"):
            at_rest(page)
            heading = page.get_by_role("heading", name=name).first
            timed(name, lambda name=name, heading=heading: visit(page, name, heading.wait_for))
        page.close()
    return found


def visit(page: Page, name: str, shown: Callable[[], object]) -> None:
    """Go to a page and wait until it is shown and at rest."""
    page.get_by_role("link", name=name, exact=True).first.click()
    shown()
    at_rest(page)


def kind_shown(page: Page) -> str:
    """The kind of the cell that is shown, when there is an answer."""
    heading = page.get_by_role("heading", level=4).first
    heading.wait_for()
    at_rest(page)
    return heading.inner_text().split("·")[0].strip()


def crowd(browser: Browser, place: Path, count: int) -> dict[str, float]:
    """Let visitors come within `SPAN` seconds, each with another field."""
    pictures = {example.name: Image.open(example.path).convert("RGB") for example in bundled_examples() if example.path}
    fields = [pictures[name] for name in ("field-1.jpg", "field-2.jpg")]
    with server(place) as (address, _):
        while not healthy(address):
            time.sleep(0.02)
        alone = opened(browser, address)
        expected = []
        for field in fields:
            upload(alone, {"field.jpg": changed(field)})
            expected.append(kind_shown(alone))
            clear(alone)
        begin, pages = time.monotonic(), []
        for number in range(count):
            page = browser.new_page(viewport=DESK)
            page.set_default_timeout(PATIENCE)
            page.goto(address, wait_until="commit")
            page.wait_for_timeout(max(0.0, 1000 * (SPAN * number / count - (time.monotonic() - begin))))
            pages.append(page)
        for number, page in enumerate(pages):
            page.get_by_role("combobox", name="Model").first.wait_for()
            page.evaluate(WATCH)
            upload(page, {f"field{number}.jpg": changed(fields[number % 2])})
        waits, wrong = [], 0
        for number, page in enumerate(pages):
            kind = kind_shown(page)
            waits.append(page.evaluate("window.hemazooShown - window.hemazooSent") / 1000)
            named = page.get_by_text(f"field{number}.jpg").count()
            wrong += kind != expected[number % 2] or not named
    return {
        "visitors": statistics.median(waits),
        "slow visitors": float(np.quantile(waits, 0.9)),
        "wrong": float(wrong),
    }


# notes in the page when a file is handed over, and when the answer is shown
WATCH = """() => {
  window.hemazooSent = performance.now();
  const look = () => {
    if (document.querySelector('h4')) window.hemazooShown = performance.now();
    else setTimeout(look, 50);
  };
  look();
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--visitors", type=int, default=30, help="0: leave the crowd out (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    executable = find_browser()
    if not executable:
        sys.exit("There is no Chrome or Chromium on the PATH.")
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        rounds = [walk(browser, Path(folder)) for _ in range(options.rounds)]
        many = crowd(browser, Path(folder), options.visitors) if options.visitors else {}
        browser.close()
    figures = {name: [one[name] for one in rounds] for name in rounds[0]} | {name: [v] for name, v in many.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(f"{name:16} {statistics.median(values):6.2f}  slowest {max(values):6.2f}")


if __name__ == "__main__":
    main()
