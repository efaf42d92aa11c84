"""The cell is located once for a picture and kind of crop, and every later step uses what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.making import LABELS, draw_cell, make_entry
from tests.zoo.serving.test_heads import ensemble, make_headed
from zoo.attribution import METHODS
from zoo.entry import Entry, read_entry
from zoo.imaging.localise import CROPS, LocatedCell, locate_cell
from zoo.imaging.preprocess import place_map, seen_region
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import FolderSource, list_entries


class Counter:
    """Locates cells as the program does, and keeps the kinds of crop that were asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, image: Image.Image, crop: str) -> LocatedCell:
        self.calls.append(crop)
        return locate_cell(image, crop)

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return sorted(calls)


@pytest.fixture
def locate() -> Counter:
    return Counter()


@pytest.fixture
def runtime(locate: Counter):
    with Runtime("cpu", "fp32", locate=locate) as running:
        yield running


def picture() -> Image.Image:
    """A cell away from the middle of a wide field, so that every kind of crop lies somewhere else."""
    field = Image.new("RGB", (240, 160), (232, 222, 214))
    field.paste(draw_cell("monocyte", 3), (20, 40))
    return field


def made(place: Path, crop: str, seed: int = 0, **ours: object) -> Entry:
    return read_entry(make_entry(place / f"net-{crop}-{seed}", "test_resnet", seed, crop=crop, **ours))


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("views", [1, 4])
def test_one_explanation_locates_the_cell_once(tmp_path, runtime, locate, crop, views):
    entry = made(tmp_path, crop, views=views)
    runtime.classify(entry, picture())
    assert locate.taken() == [crop]
    for method in METHODS if views == 1 else ("grad-cam", "occlusion"):
        found = runtime.explain(entry, picture(), LABELS[0], method)
        assert locate.taken() == [crop], method
    runtime.measure_faithfulness(entry, found)
    assert locate.taken() == []
    runtime.concepts(entry, picture())
    assert locate.taken() == [crop]


@pytest.mark.parametrize("crop", CROPS)
def test_the_map_lies_on_the_part_that_the_network_saw(tmp_path, runtime, crop):
    """As it is computed from the start: cut, seen region of the cut, map placed there."""
    entry, image = made(tmp_path, crop), picture()
    config = entry.config.pretrained_cfg.model_dump()
    for label in LABELS:
        found = runtime.explain(entry, image, label)
        left, top, right, bottom = locate_cell(image, crop).box
        region = seen_region((right - left, bottom - top), config)
        assert found.seen.region.left == left + region.left
        assert found.seen.region.top == top + region.top
        cam = found.cam / max(found.cam.max(), 1e-9)
        expected = place_map(cam, image.size, found.seen.region).clip(0, 1)
        assert np.array_equal(found.values, expected / max(expected.max(), 1e-9))
        assert np.array_equal(found.seen.pixels, runtime.model(entry).pixels(image))


def test_an_ensemble_locates_the_cell_once_for_each_kind_of_crop(tmp_path, runtime, locate):
    names = [made(tmp_path, crop, seed).id for seed, crop in enumerate(("alone", "alone", "square", "none"))]
    ensemble(tmp_path / "all", names, member_weights=[0.1, 0.2, 0.3, 0.4])
    entry = next(one for one in list_entries([FolderSource(tmp_path, "here")]) if one.id == "all")
    runtime.classify(entry, picture())
    assert locate.taken() == ["alone", "none", "square"]
    for method in ("grad-cam", "occlusion"):
        found = runtime.explain(entry, picture(), method=method)
        assert locate.taken() == ["alone", "none", "square"]
        assert found.values.shape == (160, 240)
    # its map is the mean of its members', each found by itself
    parts = [runtime.explain(member, picture(), LABELS[1]).values for member in entry.members]
    mixed = sum(weight * part for weight, part in zip((0.1, 0.2, 0.3, 0.4), parts, strict=True))
    assert np.allclose(runtime.explain(entry, picture(), LABELS[1]).values, mixed / mixed.max(), atol=1e-4)


def test_neighbours_of_an_explained_picture_need_no_second_search(tmp_path, runtime, locate):
    entry = read_entry(make_headed(tmp_path / "knn", "knn"))
    found = runtime.explain(entry, picture())
    assert locate.taken() == ["none"]
    assert runtime.neighbours(entry, picture(), seen=found.seen) == []
    assert locate.taken() == []


def test_the_crop_carries_the_located_cell():
    image = picture()
    for crop in ("square", "alone"):
        located = locate_cell(image, crop)
        assert located.crop == crop
        assert located.cell is not None
        assert located.confidence == located.cell.confidence > 0.1
        left, top, right, bottom = located.cell.box
        assert located.box[0] <= left < right <= located.box[2]
        assert located.box[1] <= top < bottom <= located.box[3]
    assert locate_cell(image, "none").image is image
