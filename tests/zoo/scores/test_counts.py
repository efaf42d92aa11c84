"""Shares of kinds with limits for chance and for the classifier's errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from zoo.scores.counts import chance_limits, count_kinds, limits

KINDS = ["basophil", "lymphocyte", "neutrophil"]


def test_limits_of_chance_are_the_exact_ones():
    for count, total in ((0, 100), (3, 100), (50, 100), (100, 100), (17, 500)):
        expected = binomtest(count, total).proportion_ci(0.95, "exact")
        low, high = chance_limits(np.array([count]), total)
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_counts_add_up_and_limits_hold_the_share():
    found = {one.kind: one for one in count_kinds(["neutrophil"] * 60 + ["lymphocyte"] * 40, KINDS, 0.05)}
    assert {kind: one.count for kind, one in found.items()} == {"basophil": 0, "lymphocyte": 40, "neutrophil": 60}
    assert found["neutrophil"].share == 0.6
    assert found["neutrophil"].low < found["neutrophil"].chance_low < 0.6 < found["neutrophil"].chance_high
    assert found["basophil"].low == 0 < found["basophil"].chance_high < found["basophil"].high
    alone = count_kinds(["neutrophil"] * 60 + ["lymphocyte"] * 40, KINDS)
    assert all((one.low, one.high) == pytest.approx((one.chance_low, one.chance_high)) for one in alone)
    assert all(np.isnan(one.share) for one in count_kinds([], KINDS))


@pytest.mark.parametrize("size", [100, 1000])
def test_limits_cover_shares_under_the_error_they_are_made_for(size):
    """A classifier that is wrong by a few points in each laboratory: limits of chance alone cover too little."""
    random = np.random.default_rng(0)
    true, error = 0.4, 0.06
    counted = random.binomial(size, (true + random.normal(0, error, 4000)).clip(0, 1))
    low, high = limits(counted, size, error)
    assert 0.93 < ((low <= true) & (true <= high)).mean() < 0.98
    narrow = chance_limits(counted, size)
    assert ((narrow[0] <= true) & (true <= narrow[1])).mean() < 0.9
