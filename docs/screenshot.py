"""Draw cells, show them to the app and keep what the page looks like: `PYTHONPATH=. python docs/screenshot.py`.

The cells are drawn by their textbook look (lobes, granules, chromatin, red cells around): no photograph is in it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.test_app import open_page, serving, settle, upload
from tests.conftest import find_browser

FINE = 4  # drawn so many times larger
SIDE = 160
SLIDE, RED, PALE = (247, 232, 226), (226, 172, 164), (240, 208, 200)
NUCLEUS = (104, 58, 140)
# radius in pixels, colours of cytoplasm and nucleus
KINDS = {
    "neutrophil": (41, (232, 206, 216), NUCLEUS),
    "eosinophil": (42, (232, 190, 182), NUCLEUS),
    "lymphocyte": (30, (186, 196, 232), NUCLEUS),
    "monocyte": (46, (178, 176, 206), (122, 84, 156)),
    "erythroblast": (28, (196, 178, 198), (62, 34, 92)),
    "platelet": (12, (200, 170, 205), NUCLEUS),
}


def outline(
    random: np.random.Generator, centre: np.ndarray, radius: float, uneven: float, stretch: float = 1, angle: float = 0
) -> np.ndarray:
    """Points (200, 2) around an uneven ellipse."""
    turn = np.linspace(0, 2 * np.pi, 200)
    away = 1 + sum(
        uneven / k * random.uniform(0.5, 1.5) * np.cos(k * turn + random.uniform(0, 2 * np.pi)) for k in range(2, 6)
    )
    x, y = radius * stretch * away * np.cos(turn), radius / stretch * away * np.sin(turn)
    return centre + np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1)


def fill(
    canvas: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], soft: float, cover: float = 1.0
) -> np.ndarray:
    """Paint an outline with a soft edge; how much of each pixel it covers (H, W)."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * FINE).astype(np.int32)], 255)
    share = cv2.GaussianBlur(mask, (0, 0), soft * FINE / 2) / 255 * cover
    canvas += (np.array(colour, float) - canvas) * share[..., None]
    return share


def speckle(
    random: np.random.Generator,
    canvas: np.ndarray,
    centre: np.ndarray,
    within: float,
    colour: tuple[int, int, int],
    count: int,
    size: float,
) -> None:
    """Granules, all over a disc."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    angles, away = random.uniform(0, 2 * np.pi, count), within * np.sqrt(random.uniform(0, 1, count))
    for x, y in (centre + away[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)) * FINE:
        cv2.circle(mask, (int(x), int(y)), max(1, int(random.uniform(0.6, 1) * size * FINE)), 255, -1)
    share = cv2.GaussianBlur(mask, (0, 0), 1.2) / 255 * 0.75
    canvas += (np.array(colour, float) - canvas) * share[..., None]


def lobes(random: np.random.Generator, kind: str, centre: np.ndarray, radius: float) -> Iterator[np.ndarray]:
    """Outlines of the nucleus."""
    turn = random.uniform(0, 2 * np.pi)

    def at(angle: float, away: float) -> np.ndarray:
        return centre + away * radius * np.array([np.cos(angle), np.sin(angle)])

    if kind == "neutrophil":
        angles = turn + 1.35 * np.arange(int(random.integers(3, 5)))
        for angle in angles:
            yield outline(random, at(angle, 0.42), 0.27 * radius, 0.12, 1.2, angle + np.pi / 2)
        for one, other in pairwise(angles):
            yield outline(random, (at(one, 0.42) + at(other, 0.42)) / 2, 0.14 * radius, 0.05)
    elif kind == "eosinophil":
        for side in (-0.95, 0.95):
            yield outline(random, at(turn + side, 0.48), 0.36 * radius, 0.1, 1.12, turn)
        yield outline(random, at(turn, 0.3), 0.15 * radius, 0.06)
    elif kind == "monocyte":
        for angle in turn + np.linspace(-1.25, 1.25, 6):
            yield outline(random, at(angle, 0.36), 0.38 * radius, 0.12)
    elif kind != "platelet":
        yield outline(random, at(turn, 0.05), {"lymphocyte": 0.82, "erythroblast": 0.55}[kind] * radius, 0.06)


def cloud(random: np.random.Generator, side: int, grain: float, strength: float) -> np.ndarray:
    """Smooth noise (side, side)."""
    coarse = random.normal(0, strength, (max(2, int(side / grain)),) * 2)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def draw(kind: str, seed: int) -> Image.Image:
    """A cell of a kind between red cells."""
    random = np.random.default_rng(seed)
    side = SIDE * FINE
    canvas = np.ones((side, side, 3)) * np.array(SLIDE, float)
    centre = SIDE / 2 + random.uniform(-5, 5, 2)
    radius, plasm, dark = KINDS[kind]
    placed: list[tuple[np.ndarray, float]] = [(centre, radius + 2.0)]
    while len(placed) < 8:
        place, size = random.uniform(-10, SIDE + 10, 2), random.uniform(22, 26)
        if all(np.hypot(*(place - other)) > size + near for other, near in placed) or random.uniform() < 0.01:
            placed.append((place, size))
    for place, size in placed[1:]:
        fill(canvas, outline(random, place, size, 0.03), RED, 1.5, 0.95)
        fill(canvas, outline(random, place, 0.45 * size, 0.05), PALE, 8, 0.8)
    inside = fill(canvas, outline(random, centre, radius, 0.05), plasm, 2, 0.95)
    canvas += (cloud(random, side, 2.5 * FINE, 5) * inside)[..., None]
    if kind == "neutrophil":
        speckle(random, canvas, centre, 0.93 * radius, (206, 160, 190), 400, 0.8)
    if kind == "eosinophil":
        speckle(random, canvas, centre, 0.93 * radius, (214, 112, 86), 900, 1.7)
    if kind == "platelet":
        speckle(random, canvas, centre, 0.7 * radius, (140, 90, 160), 60, 1.2)
    nucleus = np.zeros((side, side))
    for points in lobes(random, kind, centre, radius):
        nucleus = np.maximum(nucleus, fill(canvas, points, dark, 1.2, 0.97))
    chromatin = (cloud(random, side, 3.2 * FINE, 13) + cloud(random, side, 8 * FINE, 7)) * nucleus
    canvas += chromatin[..., None] * np.array([1, 0.8, 0.6])
    seen = cv2.resize(cv2.GaussianBlur(canvas, (0, 0), 0.9 * FINE), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    seen += random.normal(0, 2.2, seen.shape) + cv2.GaussianBlur(random.normal(0, 6, seen.shape), (0, 0), 1.5)
    return Image.fromarray(seen.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "classify.png")
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=1330)
    options = parser.parse_args()
    executable = find_browser()
    if executable is None:
        parser.error("no Chrome or Chromium was found")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        files = []
        for number, kind in enumerate(KINDS, start=1):
            files.append(str(Path(place) / f"cell-{number}.png"))
            draw(kind, number).save(files[-1])
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": options.width, "height": options.height})
        page.set_default_timeout(120_000)
        with serving(Path(place), OMP_NUM_THREADS="2") as address:
            open_page(page, address)
            upload(page, files)
            page.wait_for_timeout(3000)  # figures draw themselves
            settle(page)
            page.screenshot(path=str(options.out))
        browser.close()


if __name__ == "__main__":
    main()
