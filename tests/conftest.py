"""Fixtures of all tests: a small zoo of tiny models, and pictures that are drawn."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# before anything imports huggingface_hub: no test may reach for the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # the Hub of the tests keeps large files as LFS
# tiny networks are converted only where a test is about that: it takes longer than running them
os.environ["HEMAZOO_BACKEND"] = "torch"
# drawn cells are classified as wholes, but where a test is about fields
os.environ["HEMAZOO_DETECTOR"] = "none"
# several test processes share two cores; what they start shares them too
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.hub import Hub, serve
from tests.making import ARCHITECTURES, LABELS, add_evaluation, draw_cell, make_entry
from zoo.sources import hub as zoo_hub

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


class TwoBrowsers(LoadScopeScheduling):
    """Tests are handed out one by one, but two processes have all of the browser, and begin with them.

    More browsers at once, each with a server of its own, leave each other too little of two cores. An audit that
    several tests look at runs in one process too.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/realdata/test_planted.py"):
            return "planted"
        if not nodeid.startswith("tests/browser/"):
            return nodeid
        return "first browser" if nodeid.startswith("tests/browser/test_app.py") else "second browser"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TwoBrowsers:
    return TwoBrowsers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs the real pictures or a browser where there are none.

    What takes longest begins first, so that no test process waits for the other at the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("realdata") is None)
    real = os.environ.get("HEMAZOO_DATA")
    if real and not Path(real).is_dir():
        raise pytest.UsageError(f"HEMAZOO_DATA names {real}, which is no folder")
    browser = find_browser()
    if not browser and os.environ.get("HEMAZOO_REQUIRE_BROWSER"):
        raise pytest.UsageError("browser tests are required and there is no Chrome or Chromium on the PATH")
    for item in items:
        if item.get_closest_marker("realdata") and not real:
            item.add_marker(pytest.mark.skip(reason="HEMAZOO_DATA does not name the folder of real pictures"))
        if item.get_closest_marker("browser") and not browser:
            item.add_marker(pytest.mark.skip(reason="no Chrome or Chromium on the PATH"))


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


@pytest.fixture(autouse=True)
def _own_main_module() -> Iterator[None]:
    """AppTest makes the app's script the main module, which processes that are started later would run."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Networks of random weights are the same in each run."""
    torch.manual_seed(0)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on this computer that the client asks as alice, with caches of its own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    zoo_hub.forget()


@pytest.fixture(scope="session")
def browser_path() -> str:
    found = find_browser()
    assert found
    return found


@pytest.fixture(scope="session")
def real_data() -> Path:
    return Path(os.environ["HEMAZOO_DATA"])


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny entry an architecture, all scored on the same benchmark."""
    folder = tmp_path_factory.mktemp("zoo")
    for seed, architecture in enumerate(ARCHITECTURES):
        add_evaluation(make_entry(folder / f"tiny-{architecture.replace('_', '-')}", architecture, seed), seed)
    return folder


@pytest.fixture
def zoo_environment(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMAZOO_ZOO", str(tiny_zoo))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return tiny_zoo


@pytest.fixture(scope="session")
def cells() -> list[Image.Image]:
    return [draw_cell(label, seed) for seed in range(4) for label in LABELS]
