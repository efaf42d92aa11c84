"""A conversion that is killed, or finds the disk full, leaves nothing that the next process stumbles over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.making import draw_cell

resource = pytest.importorskip("resource")  # not on Windows
pytest.importorskip("openvino")
ROOT = Path(__file__).parents[3]
SECONDS = 300


class Asking:
    """Processes that classify one picture with one entry and cache folder."""

    def __init__(self, entry: Path, folder: Path) -> None:
        self.converted = folder / "cache" / "converted"
        self.picture = folder / "cell.png"
        draw_cell("monocyte", 1).save(self.picture)
        self.environment = {**os.environ, "HEMAZOO_ZOO": str(entry), "HEMAZOO_CACHE": str(folder / "cache")}
        self.model = entry.name

    def start(self, backend: str, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "zoo", "classify", str(self.picture), "--model", self.model, "--json"]
        return subprocess.Popen(
            [*command, "--backend", backend, "--device", "cpu"], cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,  # noqa: PLW1509 (no other thread runs)
        )  # fmt: skip

    def answer(self, backend: str, prepare: Callable[[], None] | None = None) -> dict[str, Any]:
        out, told = self.start(backend, prepare).communicate(timeout=SECONDS)
        found: dict[str, Any] = json.loads(out)
        return found | {"told": told}

    def partial(self) -> list[Path]:
        """Files of a conversion that is under way."""
        return list(self.converted.glob(".*.partial/*"))


@pytest.fixture
def asking(tiny_zoo: Path, tmp_path: Path) -> Asking:
    return Asking(tiny_zoo / "tiny-test-efficientnet", tmp_path)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one["probabilities"].values(), other["probabilities"].values(), strict=True)
    return one["label"] == other["label"] and all(abs(a - b) < 2e-3 for a, b in pairs)


def test_the_next_process_converts_anew_after_a_kill(asking):
    killed = asking.start("openvino")
    end = time.monotonic() + SECONDS
    while not asking.partial():
        assert killed.poll() is None and time.monotonic() < end, killed.communicate()
        time.sleep(0.002)
    killed.kill()
    killed.communicate(timeout=SECONDS)
    assert asking.partial()
    assert not list(asking.converted.glob("*/choice.json"))
    found = asking.answer("openvino")
    assert found["backend"] == "openvino"
    assert same(found, asking.answer("torch"))
    (left,) = asking.converted.iterdir()
    assert (left / "choice.json").exists()


@pytest.mark.parametrize("room", [0, 300_000])
def test_torch_answers_while_the_disk_is_full(asking, room):
    full = asking.answer("openvino", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert full["backend"] == "torch"
    assert "cannot be used" in full["told"]
    # with room again the network is converted
    found = asking.answer("openvino")
    assert found["backend"] == "openvino"
    assert same(found, full)
