"""An .npz of 96×96 pictures made from pbc, with copies, pasted cells, foreign pictures and flipped labels slipped in.

Only pictures that the audit's embedding model was not trained on are used, because it would know the labels of others.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw, ImageFilter

from training.cli import main
from zoo.entry import read_predictions
from zoo.imaging.localise import find_cell
from zoo.sources.catalogue import get_entry

pytestmark = [pytest.mark.realdata, pytest.mark.artefacts]  # minutes

SIZE = 96  # pixels


@dataclass(frozen=True)
class Counts:
    """Numbers of pictures: those of pbc, and those that are planted among them."""

    base: int
    exact: int
    turned: int
    pasted: int
    foreign: int
    flipped: int


COUNTS = Counts(1500, 60, 60, 30, 25, 40)  # fewer pictures of pbc, and label errors are not found
PHOTOS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "camera",
    "coins",
    "page",
    "text",
    "moon",
    "clock",
    "brick",
    "grass",
)
PHOTOS += ("gravel", "immunohistochemistry", "horse", "cell", "colorwheel", "retina")


@dataclass(frozen=True)
class Planted:
    """Files of the archive by what was done: pairs (source, copy), foreign pictures, flipped labels."""

    counts: Counts
    path: Path
    exact: list[tuple[str, str]]
    turned: list[tuple[str, str]]
    pasted: list[tuple[str, str]]
    foreign: list[str]
    flipped: list[str]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def turned(image: Image.Image, random: np.random.Generator, number: int) -> Image.Image:
    angle = float(random.uniform(0, 360)) if number % 2 else float(random.choice([90, 180, 270]))
    corner = image.getpixel((0, 0)) if number % 4 else (0, 0, 0)
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=corner)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return encoded(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC), int(random.integers(50, 90)))


def pasted(image: Image.Image, other: Image.Image, random: np.random.Generator, number: int) -> Image.Image:
    """The cell, cut along its outline or in a disc, on a mirrored corner, a plain ground or a shifted picture."""
    pixels = np.asarray(other)
    third = SIZE // 3
    grounds = (
        np.pad(pixels[:third, :third], ((0, SIZE - third), (0, SIZE - third), (0, 0)), mode="symmetric"),
        np.ones((SIZE, SIZE, 3)) * random.uniform(180, 240, 3) + random.normal(0, 6, (SIZE, SIZE, 3)),
        np.roll(pixels, (SIZE // 2, SIZE // 2), (0, 1)),
    )
    ground = Image.fromarray(grounds[number % 3].clip(0, 255).astype(np.uint8))
    cell = find_cell(image)
    if number % 2:
        mask = Image.fromarray((cell.mask * 255).astype(np.uint8)).resize((SIZE, SIZE))
    else:
        mask = Image.new("L", (SIZE, SIZE))
        (x, y), (left, top, right, bottom) = cell.centre, cell.box
        radius = max(right - left, bottom - top) / 2 * 1.05
        ImageDraw.Draw(mask).ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    ground.paste(image, (0, 0), mask.filter(ImageFilter.GaussianBlur(1)))
    return encoded(ground, 90)


def foreign(random: np.random.Generator, number: int) -> Image.Image:
    """A photograph, noise, one colour, or text."""
    if number < 20:
        photo = getattr(skimage.data, PHOTOS[number % len(PHOTOS)])()
        photo = (photo * 255).astype(np.uint8) if photo.dtype != np.uint8 else photo
        photo = np.stack([photo] * 3, -1) if photo.ndim == 2 else photo[..., :3]
        side = min(photo.shape[:2]) * 2 // 3
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
        return Image.fromarray(photo[top : top + side, left : left + side]).resize((SIZE, SIZE))
    if number < 24:
        return Image.fromarray(random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    if number < 27:
        blank = random.integers(0, 255, 3) + random.normal(0, 1, (SIZE, SIZE, 3))  # exactly one colour is refused
        return Image.fromarray(np.clip(blank, 0, 255).astype(np.uint8))
    page = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(page).text((5, 20 + number), f"no cell here {number}", fill="black")
    return page


@pytest.fixture(scope="module")
def planted(real_data, tmp_path_factory) -> Planted:
    counts = COUNTS
    random = np.random.default_rng(11)
    entry = get_entry("pbc8-efficientnet-lite0")
    unseen = sorted(file for name in ("pbc-test", "pbc-validation") for file in read_predictions(entry, name)["file"])
    files = [unseen[i] for i in sorted(random.choice(len(unseen), counts.base, replace=False))]
    large = [Image.open(real_data / "pbc" / file).convert("RGB") for file in files]
    images = [image.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in large]
    labels = [file.split("/")[0] for file in files]
    order = [int(i) for i in random.permutation(counts.base)]
    sources = iter(order)
    pairs: dict[str, list[tuple[int, int]]] = {"exact": [], "turned": [], "pasted": []}
    for kind, count in (("exact", counts.exact), ("turned", counts.turned), ("pasted", counts.pasted)):
        for number in range(count):
            source = next(sources)
            pairs[kind].append((source, len(images)))
            if kind == "exact":
                images.append(images[source])
            elif kind == "turned":
                images.append(turned(large[source], random, number))
            else:
                images.append(pasted(images[source], images[order[-1 - number]], random, number))
            labels.append(labels[source])
    flips = [next(sources) for _ in range(counts.flipped)]
    classes = sorted(set(labels))
    strangers = []
    for number in range(counts.foreign):
        strangers.append(len(images))
        images.append(foreign(random, number))
        labels.append(str(random.choice(classes)))
    for row in flips:
        labels[row] = str(random.choice([name for name in classes if name != labels[row]]))
    path = tmp_path_factory.mktemp("planted") / "set.npz"
    np.savez(path, images=np.stack([np.asarray(image) for image in images]), labels=np.array(labels))
    names = [f"{row:0{len(str(len(images) - 1))}}" for row in range(len(images))]
    named = {kind: [(names[a], names[b]) for a, b in found] for kind, found in pairs.items()}
    return Planted(counts, path, **named, foreign=[names[r] for r in strangers], flipped=[names[r] for r in flips])


@pytest.fixture(scope="module")
def report(planted, tmp_path_factory) -> dict:
    place = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMAZOO_CACHE", str(place / "cache"))
        assert main(["audit", str(planted.path), "--out", str(place / "report")]) == 0
    return json.loads((place / "report" / "report.json").read_text())


def found_share(pairs: list[tuple[str, str]], groups: list[list[str]]) -> float:
    group = {file: number for number, files in enumerate(groups) for file in files}
    return float(np.mean([a in group and group[a] == group.get(b) for a, b in pairs]))


def test_planted_copies_are_found(planted, report):
    pixel, near = report["duplicates"]["pixel"], report["duplicates"]["near"]
    assert found_share(planted.exact, pixel) == 1
    assert found_share(planted.turned, near) >= 0.98
    assert found_share(planted.pasted, near) >= 0.80
    known = {file for pair in (*planted.exact, *planted.turned, *planted.pasted) for file in pair}
    # pbc has copies of its own, and some foreign pictures are alike; both count as wrong here
    named = {file for group in near for file in group}
    assert len(named & known) >= 0.8 * len(named)
    assert len({f for group in pixel for f in group} & known) >= 0.8 * sum(map(len, pixel))


def test_planted_foreign_pictures_are_found(planted, report):
    found = set(report["outliers"])
    assert len(found & set(planted.foreign)) >= 0.9 * planted.counts.foreign
    assert len(found & set(planted.foreign)) >= 0.8 * len(found)


def test_planted_label_errors_are_found(planted, report):
    found = set(report["label_errors"])
    assert len(found & set(planted.flipped)) >= 0.7 * planted.counts.flipped
    assert len(found & set(planted.flipped)) >= 0.8 * len(found)
