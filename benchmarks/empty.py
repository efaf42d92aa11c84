"""White cells that a detector finds in pictures without any.

    python benchmarks/empty.py --data ROOT [--detector ID] [--draw DIR] [--json]

Pictures: Chula's fields of red cells, empty slides, pages of text, textures, and photographs that come with
scikit-image and scikit-learn, whole and in parts. Prints for each group how many pictures have no white cell (goal:
99 % of all). Photographs that detectors are trained with are a group of their own. --draw writes those in which white
cells are found, with boxes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn.datasets
from PIL import Image, ImageDraw
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from training.detection.train import STRANGERS
from zoo.detection.detector import Detector
from zoo.detection.objects import WHITE
from zoo.figures.cells import draw_cells
from zoo.imaging.decode import decode
from zoo.serving.fields import NamedCells
from zoo.sources.catalogue import DETECTOR, get_detector
from zoo.threads import set_up_threads

SIZE = (640, 480)  # of drawn pictures
SLIDES, PAGES, TEXTURES = 70, 30, 40
# Chula's fields of red cells that hold a white cell all the same, as looking at them shows
WITH_WHITE_CELLS = {"100", "171", "327", "499", "538", "Thalassemia_Thalassemia_10"} | {
    "Iron_deficiency_anemia_Iron_deficiency_anemia_18"
}
FILES = {"immunohistochemistry": "ihc"}  # scikit-image's names whose files are called otherwise
GROUNDS = ((232, 222, 214), (240, 238, 242), (205, 200, 190), (250, 250, 250), (225, 205, 215))
WORDS = "Giemsa smear of 12 May, slide 4: ring forms, count 100 white cells, thin area only. "


def main() -> None:
    """Count and print."""
    set_up_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds chula")
    parser.add_argument("--detector", default=DETECTOR, metavar="ID", help="(default: %(default)s)")
    parser.add_argument("--draw", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    detector = Detector(get_detector(options.detector))
    totals: dict[str, list[int]] = {}
    for group, name, image in tqdm(pictures(options.data), unit="picture"):
        found = detector.find(image)
        white = found.of(WHITE)
        total = totals.setdefault(group, [0, 0, 0])
        total[0] += 1
        total[1] += not white
        total[2] += len(white)
        if white:
            told = ", ".join(f"{cell.confidence:.2f} {[round(v) for v in cell.box]}" for cell in white[:6])
            tqdm.write(f"{group}, {name}: {len(white)} white of {len(found.cells)} cells: {told}")
            if options.draw:
                options.draw.mkdir(parents=True, exist_ok=True)
                draw_cells(image, NamedCells(found, (None,) * len(found.cells), "")).save(
                    options.draw / f"{group}-{name}.png"
                )
    if options.json:
        print(json.dumps({group: {"pictures": n, "without": good} for group, (n, good, _) in totals.items()}))
        return
    totals["all"] = [sum(column) for column in zip(*totals.values(), strict=True)]
    for group, (count, good, white) in totals.items():
        print(f"{group:24}{count:5} pictures, {100 * good / count:5.1f} % without white cells; {white} found")


def pictures(root: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Group, name and picture of each."""
    for path in sorted((root / "chula" / "red").glob("*.jpg")):
        if path.stem not in WITH_WHITE_CELLS:
            yield "red cells", path.stem, decode(path)
    random = np.random.default_rng(0)
    for number in range(SLIDES):
        yield "empty slides", str(number), slide(number, random)
    for number in range(PAGES):
        yield "pages of text", str(number), page(number, random)
    for number in range(TEXTURES):
        yield "textures", str(number), texture(number, random)
    for name, image in photographs():
        trained = name in {FILES.get(stranger, stranger) for stranger in STRANGERS}
        group = "photographs of training" if trained else "photographs"
        for part, shown in parts(image):
            yield group, f"{name}-{part}", shown


def slide(number: int, random: np.random.Generator) -> Image.Image:
    """An empty slide: its ground, uneven light, noise, and dust or lines on some."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width] / max(SIZE)
    light = 1 - random.uniform(0, 0.6) * ((x - random.random()) ** 2 + (y - random.random()) ** 2)
    pixels = np.array(GROUNDS[number % len(GROUNDS)]) * light[..., None] + random.normal(
        0, random.uniform(0, 9), (height, width, 3)
    )
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(random.integers(0, 12)) if number % 2 else 0):
        x0, y0 = random.uniform(0, width), random.uniform(0, height)
        length, shade = random.uniform(1, 60), int(random.integers(60, 200))
        end = x0 + length, y0 + random.uniform(-length, length)
        pen.line((x0, y0, *end), fill=(shade, shade, shade), width=int(random.integers(1, 4)))
    return image


def page(number: int, random: np.random.Generator) -> Image.Image:
    """Lines of text, dark on light or light on dark."""
    dark, light = (20, 20, 30), (245, 245, 240)
    image = Image.new("RGB", SIZE, light if number % 3 else dark)
    pen, size = ImageDraw.Draw(image), int(random.integers(10, 40))
    for row in range(0, SIZE[1], size + 6):
        start = int(random.integers(len(WORDS)))
        pen.text((12, row), (WORDS + WORDS)[start : start + 70], fill=dark if number % 3 else light, font_size=size)
    return image


def texture(number: int, random: np.random.Generator) -> Image.Image:
    """Noise of one grain, coloured like stains or not, or tiles."""
    grain = int(2 ** random.uniform(1, 7))
    small = random.random((max(2, SIZE[1] // grain), max(2, SIZE[0] // grain), 1 if number % 2 else 3))
    how = cv2.INTER_CUBIC if number % 4 else cv2.INTER_NEAREST
    values = cv2.resize(np.ascontiguousarray(small), SIZE, interpolation=how).reshape(SIZE[1], SIZE[0], -1).clip(0, 1)
    low, high = np.array([110, 60, 140]), np.array([240, 215, 220])
    return Image.fromarray((low + (high - low) * values).astype(np.uint8))


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Photographs that installed packages bring."""
    places = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]
    for path in sorted(path for place in places for path in place.iterdir() if path.suffix in (".png", ".jpg")):
        yield path.stem, decode(path)


def parts(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The whole picture, its quarters, and its middle."""
    width, height = image.size
    yield "whole", image
    for number in range(4):
        left, top = number % 2 * width // 2, number // 2 * height // 2
        yield f"quarter{number}", image.crop((left, top, left + width // 2, top + height // 2))
    yield "middle", image.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))


if __name__ == "__main__":
    main()
