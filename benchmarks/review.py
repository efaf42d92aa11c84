"""Seconds that a reviewer waits, in a browser, in a field of 300 white cells.

    python benchmarks/review.py [--rounds N] [--json]

Prints medians and the slowest of each, in milliseconds, at the page itself:
- `choose`: from a click on a box of the field until the panel shows its cell (goal: 200);
- `correct`: from a key until the gallery shows the kind that it gives (goal: 200);
- `counted`: from the same key until the differential has counted it;
- `alike`: from a click on a box until the panel also shows the known cells most like it, once the model has read these
  (goal: 300 more than `choose`).
Needs Chrome or Chromium. The detector is a stand-in that knows where the drawn cells lie; all else is the app.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
ENVIRONMENT = dict(os.environ)  # before tests set theirs

from tests.browser.test_app import open_page, serving, settle  # noqa: E402
from tests.conftest import find_browser  # noqa: E402
from tests.fields import draw_crowd, make_detector  # noqa: E402

os.environ.clear()
os.environ.update(ENVIRONMENT)  # the app is measured as people start it

SIZE = {"width": 1440, "height": 900}
PATIENCE_MS = 300_000
# The milliseconds from an action until a condition holds, looked at before each frame; `at` is a cell's number
TIMED = """([action, condition, at, key]) => {
  const board = [...document.querySelectorAll('*')].map(one => one.shadowRoot?.querySelector('.board')).find(Boolean);
  const cell = () => board.querySelector(`.gallery [data-id$='-${at}']`);
  const box = board.querySelector(`svg g[data-id$='-${at}'] rect.hit`);
  const panel = document.querySelector('.st-key-chosen_cell');
  const alike = () => document.querySelectorAll("img[alt^='Known cell']");
  const counted = () => [...document.querySelectorAll('[data-testid=stProgress]')].map(one => one.textContent).join();
  const actions = {
    click: () => box.dispatchEvent(new MouseEvent('click', {bubbles: true})),
    press: () => board.querySelector('.gallery').dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})),
  };
  const conditions = {
    panel: () => panel.textContent.includes(`Cell ${at} of`),
    gallery: () => cell().getAttribute('aria-label').includes('the model says'),
    counted: () => counted() !== before,
    alike: () => conditions.panel() && alike().length > 3
      && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning',
  };
  const before = counted();
  return new Promise((done, fail) => {
    const begun = performance.now();
    const look = () => {
      const taken = performance.now() - begun;
      if (conditions[condition]()) done(taken);
      else if (taken > 60000) fail(new Error(`no ${condition} of cell ${at}`));
      else requestAnimationFrame(look);
    };
    actions[action]();
    look();
  });
}"""


def timed(page: Page, action: str, condition: str, at: int, key: str = "") -> float:
    """Milliseconds of a step, after which the page comes to rest."""
    taken: float = page.evaluate(TIMED, [action, condition, at, key])
    settle(page)
    return taken


def measure(page: Page, address: str, picture: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step by its name, a value a round."""
    open_page(page, address)
    page.locator("input[type=file]").first.set_input_files(str(picture))
    page.get_by_role("option").nth(1).wait_for()
    settle(page)
    found: dict[str, list[float]] = {"choose": [], "correct": [], "counted": [], "alike": []}
    numbers = iter(range(10, 290, 4))
    for _ in range(rounds):
        found["choose"].append(timed(page, "click", "panel", next(numbers)))
    for _ in range(rounds):
        at = next(numbers)
        timed(page, "click", "panel", at)
        found["correct"].append(timed(page, "press", "gallery", at, "8"))  # a plasma cell, which no model here knows
    for _ in range(rounds):
        at = next(numbers)
        for key in ("9", "8"):  # a smudge cell is not counted, a plasma cell is
            timed(page, "click", "panel", at)
            taken = timed(page, "press", "gallery" if key == "9" else "counted", at, key)
        found["counted"].append(taken)
    page.get_by_text("Known cells most like this one").click()
    page.get_by_alt_text("Known cell: ").first.wait_for()
    settle(page)
    for _ in range(rounds):
        found["alike"].append(timed(page, "click", "alike", next(numbers)))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    executable = find_browser()
    if not executable:
        sys.exit("There is no Chrome or Chromium on the PATH.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        place = Path(folder)
        make_detector(place / "zoo" / "drawn")
        draw_crowd()[0].save(place / "crowd.png")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        more = {"HEMAZOO_ZOO": str(place / "zoo"), "HEMAZOO_DETECTOR": "drawn"}
        with serving(place, program="tests.fields", **more) as address:
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(PATIENCE_MS)
            found = measure(page, address, place / "crowd.png", options.rounds)
        browser.close()
    summary = {}
    for name, taken in found.items():
        summary |= {f"{name}_ms": statistics.median(taken), f"{name}_slowest_ms": max(taken)}
    print(
        json.dumps(summary) if options.json else "\n".join(f"{name:22} {value:.0f}" for name, value in summary.items())
    )


if __name__ == "__main__":
    main()
