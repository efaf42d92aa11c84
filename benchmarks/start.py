"""Seconds from the start of the app to the first usable page in a browser.

    python benchmarks/start.py [--rounds N] [--json]

Prints seconds until the server answers, and until the Classify page shows its model picker (goal: 10). Needs Chrome or
Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import find_browser  # noqa: E402


def start(executable: str) -> tuple[float, float]:
    """Seconds until the server is healthy and until the first page is usable."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        begin = time.monotonic()
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
        environment = {key: value for key, value in os.environ.items() if key != "HEMAZOO_ZOO"}
        app = subprocess.Popen(
            [*command, "--server.address", "127.0.0.1"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            while not healthy(address):
                time.sleep(0.05)
            up = time.monotonic() - begin
            page.goto(address)
            page.get_by_role("combobox", name="Model").first.wait_for(timeout=120_000)
            return up, time.monotonic() - begin
        finally:
            app.terminate()
            app.wait(20)
            browser.close()


def healthy(address: str) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    executable = find_browser()
    if not executable:
        sys.exit("There is no Chrome or Chromium on the PATH.")
    found = [start(executable) for _ in range(options.rounds)]
    summary = {
        "server_seconds": statistics.median(up for up, _ in found),
        "page_seconds": statistics.median(page for _, page in found),
        "slowest_page_seconds": max(page for _, page in found),
    }
    print(
        json.dumps(summary) if options.json else "\n".join(f"{name:22} {value:.2f}" for name, value in summary.items())
    )


if __name__ == "__main__":
    main()
