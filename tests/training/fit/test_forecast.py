"""Estimates of the time that a training takes."""

from __future__ import annotations

import pytest

from training.fit.plan import describe_plan
from training.fit.processor.forecast import Forecast
from training.recipe import load_recipe

SIDES = {"train": 200, "val": 40, "test": 60}


def test_a_stage_on_kept_features_costs_its_first_epoch():
    epochs = Forecast.of(load_recipe("starter"), SIDES).epochs
    assert len(epochs) == 18
    assert epochs[0] > 10 * epochs[1] and epochs[10] == epochs[17] > epochs[0]


def test_small_pictures_cost_less():
    epochs = Forecast.of(load_recipe("pbc8-efficientnet-lite0"), SIDES).epochs
    assert epochs[0] == pytest.approx(epochs[-1] * (112 / 160) ** 2)


def test_the_time_left_follows_what_was_measured():
    forecast = Forecast([10.0, 10.0, 80.0], seconds_a_picture=1.0)
    assert forecast.seconds == 100
    assert forecast.left(0, 0.0, 0.0) == 100
    assert forecast.left(1, 0.0, 20.0) == pytest.approx(180)  # twice as slow as expected
    assert Forecast([10.0, 10.0]).left(0, 0.0, 0.0) is None
    assert Forecast([10.0, 10.0]).left(1, 0.5, 30.0) == pytest.approx(10)


def test_the_plan_says_what_is_trained_and_about_how_long():
    plan = describe_plan(load_recipe("starter"), SIDES, 0.05)
    assert "10 epochs of the head at a learning rate of 0.003, then 8 epochs of all layers" in plan
    assert "200 pictures" in plan and "in batches of 29" in plan and plan.endswith("About 2 minutes in all.")
    assert describe_plan(load_recipe("starter"), SIDES).endswith("scored once at the end.")


def test_runs_that_follow_and_scoring_count():
    recipe = load_recipe("starter")
    one = Forecast.of(recipe, SIDES, 0.05)
    assert one.seconds > 0.05 * sum(one.epochs)
    assert Forecast.of(recipe, {**SIDES, "test": 600}, 0.05).seconds > one.seconds
    four = Forecast.of(recipe, SIDES, 0.05, runs_after=3)
    assert four.seconds - one.seconds == pytest.approx(3 * 0.05 * sum(one.epochs))
    last = len(one.epochs) - 1
    assert one.left(last, 1.0, 100.0) > 0  # all epochs are done
    assert four.left(last, 1.0, 100.0) - one.left(last, 1.0, 100.0) == pytest.approx(300)
