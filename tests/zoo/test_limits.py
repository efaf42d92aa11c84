"""Tests of the limits and of the environment variables that change them."""

from __future__ import annotations

import pytest

from zoo import limits
from zoo.limits import HUB_TIMEOUT, JSON_MB, LimitError, every_limit

LIMITS = list(every_limit())


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_every_limit_can_be_changed_by_its_variable(limit, monkeypatch):
    assert getattr(limits, limit.name) is limit
    monkeypatch.delenv(limit.variable, raising=False)
    assert limit.value == limit.default > 0
    monkeypatch.setenv(limit.variable, "7")
    assert limit.value == 7


def test_limits_in_megabytes_and_seconds(monkeypatch):
    monkeypatch.setenv(JSON_MB.variable, "1.5")
    assert JSON_MB.bytes == 1_500_000
    monkeypatch.setenv(HUB_TIMEOUT.variable, "0.25")
    assert HUB_TIMEOUT.exact == 0.25


@pytest.mark.parametrize("text", ["many", "0", "-3", "nan", "inf", "0.5"])
def test_a_wrong_limit_is_refused_with_its_name(text, monkeypatch):
    monkeypatch.setenv(JSON_MB.variable, text)
    with pytest.raises(LimitError, match=rf"HEMAZOO_JSON_MB is '{text}': give a number above 0 \(MB\)"):
        _ = JSON_MB.value
