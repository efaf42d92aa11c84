"""Training crops, composites and targets: every marked cell stays where its pixels are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from training.detection.loss import detection_loss
from training.detection.pictures.composed import compose
from training.detection.pictures.composites import cut_cells, paste_cells
from training.detection.pictures.crops import Marked, join_quarters, marked, random_crop, scale_for
from training.detection.pictures.samples import CropStream, Mix
from training.detection.pictures.targets import make_targets
from training.evaluation.benchmarks import DecodedPicture
from zoo.data.table import DataError
from zoo.detection.benchmarks import Composed
from zoo.detection.fields import Field
from zoo.detection.found import read_maps
from zoo.detection.matching import iou
from zoo.detection.objects import OBJECTS, RED, WHITE

SIDE = 128


def drawn(seed: int = 0, white: int = 1) -> Marked:
    """A field of 240×200 pixels: dark squares of 20 pixels are red cells, and of 40 pixels white ones."""
    random = np.random.default_rng(seed)
    pixels = np.full((200, 240, 3), 235, np.uint8)
    boxes, numbers = [], []
    for place in random.permutation(20)[:12]:
        side = 40 if len(boxes) < white else 20
        x, y = 45 * (place % 5) + 6, 48 * (place // 5) + 4
        pixels[y : y + side, x : x + side] = (90, 20, 120) if side == 40 else (180, 90, 90)
        boxes.append((x, y, x + side, y + side))
        numbers.append(OBJECTS.index(WHITE if side == 40 else RED))
    return marked(pixels, np.array(boxes), np.array(numbers))


def test_boxes_of_crops_lie_on_their_cells():
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(40):
        crop = random_crop(drawn(), SIDE, float(random.uniform(0.5, 2)), random)
        dark = crop.pixels[..., 1] < 150
        for left, top, right, bottom in crop.boxes.round().astype(int):
            inside = dark[max(0, top + 2) : bottom - 2, max(0, left + 2) : right - 2]
            assert inside.mean() > 0.95
            seen += 1
        covered = np.zeros_like(dark)
        for left, top, right, bottom in np.concatenate([crop.boxes, crop.unsure]).round().astype(int):
            covered[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3] = True
        assert not (dark & ~covered).any(), "every cell has a box, or is left out as unsure"
    assert seen > 100


def test_scale_brings_red_cells_to_the_wanted_size():
    assert scale_for(drawn(), 40) == pytest.approx(2)
    only_white = drawn()
    only_white = marked(only_white.pixels, only_white.boxes[:1], only_white.numbers[:1])
    assert scale_for(only_white, 40) == pytest.approx(40 / (40 / 1.7))


def test_four_squares_become_one():
    random = np.random.default_rng(1)
    parts = [random_crop(drawn(seed), 64, 0.6, random) for seed in range(4)]
    joined = join_quarters(parts)
    assert joined.pixels.shape == (SIDE, SIDE, 3)
    assert np.array_equal(joined.pixels[64:, 64:], parts[3].pixels)
    assert len(joined.boxes) == sum(len(part.boxes) for part in parts)
    assert np.allclose(joined.boxes[-len(parts[3].boxes) :] - 64, parts[3].boxes, atol=1e-3)


def test_pasted_cells_are_marked_and_what_they_cover_is_gone():
    field, random = drawn(white=0), np.random.default_rng(0)
    cells = cut_cells(drawn(3))
    assert [cell.number for cell in cells] == [OBJECTS.index(WHITE)]
    assert cells[0].red_sides == pytest.approx(2)
    made = paste_cells(field, cells * 4, random)
    white = made.boxes[made.numbers == OBJECTS.index(WHITE)]
    assert 1 <= len(white) <= 4
    purple = (made.pixels[..., 2] > made.pixels[..., 0]) & (made.pixels[..., 1] < 120)
    for left, top, right, bottom in white.round().astype(int):
        middle = purple[(top + bottom) // 2, (left + right) // 2]
        assert middle
    assert ndimage.label(purple)[1] <= len(white)


def test_targets_give_back_the_boxes():
    crop = random_crop(drawn(), SIDE, 1.2, np.random.default_rng(5))
    targets = make_targets(crop)
    heat = targets.heat.clip(1e-6, 1 - 1e-6)
    (found,) = read_maps(np.log(heat / (1 - heat))[None], targets.sides[None], 0.9)
    assert len(found) == len(crop.boxes)
    for box, number in zip(crop.boxes, crop.numbers, strict=True):
        assert np.abs(found.boxes[found.numbers == number] - box).max(axis=1).min() < 1


def test_loss_is_least_for_the_right_answer():
    targets = make_targets(random_crop(drawn(), SIDE, 1.2, np.random.default_rng(5)))
    heat, sides, weights, sure = (
        torch.from_numpy(part)[None] for part in (targets.heat, targets.sides, targets.box_weights, targets.sure)
    )
    right = torch.where(heat == 1, 9.0, -9.0)
    losses = [
        detection_loss(logits, found, heat, sides, weights, sure)
        for logits, found in ((right, sides), (-right, sides), (right, sides * 1.5), (torch.zeros_like(heat), sides))
    ]
    assert losses[0] < 0.1
    assert min(losses[1:]) > losses[0] + 0.3


def test_a_stream_is_decided_by_its_seed():
    fields = [drawn(seed) for seed in range(3)]
    cells = [cell for field in fields for cell in cut_cells(field)]
    strangers = [np.full((50, 70, 3), 40, np.uint8)]
    streams = [CropStream(fields, cells, strangers, Mix(SIDE, 0.5, 0.2), 12, seed) for seed in (1, 1, 2)]
    first, again, other = ([stream[n]["picture"] for n in range(12)] for stream in streams)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert {tuple(picture.shape) for picture in first} == {(3, SIDE, SIDE)}


def test_composed_fields_hold_the_wanted_white_cells_and_none_hides_another():
    def field(seed: int) -> Field:
        one = drawn(seed)
        objects = tuple(OBJECTS[number] for number in one.numbers)
        return Field(f"{seed}.png", DecodedPicture(Image.fromarray(one.pixels)), objects, one.boxes, relative=False)

    fields = [field(seed) for seed in range(4)]
    made = compose(fields, Composed(fields=6, white_cells=4, seed=0))
    assert [len(one.objects) - one.objects.count(RED) for one in made] == [4] * 6
    for one in made:
        white = one.corners[np.array(one.objects) == WHITE]
        overlap = iou(white, white)
        np.fill_diagonal(overlap, 0)
        assert overlap.max() < 0.15
    again = compose(fields, Composed(fields=6, white_cells=4, seed=0))
    assert all(np.array_equal(a.image(), b.image()) for a, b in zip(made, again, strict=True))
    with pytest.raises(DataError, match="could be put together"):
        compose(fields, Composed(fields=2, white_cells=60, seed=0))
