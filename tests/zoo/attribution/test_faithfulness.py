"""Measures of maps, on a model whose evidence is known: it depends on one square only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from zoo.attribution import faithfulness
from zoo.attribution.faithfulness import curves, energy_inside, enlarge, points_inside, road, share_of

SIZE = (48, 64)


@pytest.fixture
def picture():
    torch.manual_seed(0)
    image = torch.randint(180, 220, (3, *SIZE), dtype=torch.uint8)
    image[:, 16:32, 16:32] = torch.randint(0, 60, (3, 16, 16), dtype=torch.uint8)
    return image


def ask(pictures):
    """Class 0 where the square is dark."""
    dark = torch.stack([1 - p[:, 16:32, 16:32].float().mean() / 255 for p in pictures]).numpy()
    return np.stack([dark, 1 - dark], 1)


def square(inside: float, outside: float) -> np.ndarray:
    cam = np.full((6, 8), outside, np.float32)
    cam[2:4, 2:4] = inside
    return cam


def test_a_true_map_beats_a_random_one(picture):
    true, false = square(1, 0), square(0, 1)
    random = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    found = [road(ask, picture, cam, 0) for cam in (true, random, false)]
    assert found[0] > 0.2 > found[1] > found[2]
    assert found[2] < -0.2
    gone, back = zip(*(curves(ask, picture, cam, 0) for cam in (true, random, false)), strict=True)
    assert gone[0] < gone[1] < gone[2]
    assert back[0] > back[1] > back[2]


def test_road_equals_the_librarys(picture):
    class Model(torch.nn.Module):
        def forward(self, batch):
            return torch.from_numpy(ask(list(batch * 255)))

    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    cam = np.exp(-((rows - 24.3) ** 2 + (columns - 23.6) ** 2) / 200).astype(np.float32)  # no two values alike
    ours = road(ask, picture, cam, 0)
    assert ours > 0.2
    shares = [100 * (1 - share) for share in faithfulness.REMOVED_SHARES]
    theirs = ROADCombined(percentiles=shares)(
        picture[None].float() / 255, cam[None], [ClassifierOutputTarget(0)], Model()
    )
    assert ours == pytest.approx(float(theirs[0]), abs=0.03)


def test_an_empty_map_scores_as_chance(picture):
    assert abs(road(ask, picture, np.zeros((6, 8), np.float32), 0)) < 0.1


def test_pointing_and_energy():
    values = enlarge(square(1, 0.05), SIZE)
    inside, outside = (14, 14, 34, 34), (40, 0, 64, 48)
    assert points_inside(values, inside)
    assert not points_inside(values, outside)
    assert energy_inside(values, inside) > 0.5 > energy_inside(values, outside)
    assert energy_inside(values, (0, 0, 64, 48)) == pytest.approx(1)
    assert np.isnan(energy_inside(np.zeros(SIZE), inside))
    assert share_of(inside, (64, 48)) == pytest.approx(400 / 3072)
    assert share_of((-10, -10, 32, 24), (64, 48)) == pytest.approx(0.25)
    # of a flat top the middle counts
    flat = np.zeros(SIZE)
    flat[10:40, 10:40] = 1
    assert points_inside(flat, (22, 22, 28, 28))


def test_equal_values_have_a_fixed_order(picture):
    flat = np.ones((6, 8), np.float32)
    assert road(ask, picture, flat, 0) == road(ask, picture, flat, 0)
