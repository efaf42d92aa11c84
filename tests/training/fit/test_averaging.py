"""Averages of weights: moving, and of several runs."""

from __future__ import annotations

import torch

from tests.training.fit.drawn import recipe, weights
from training.fit.averaging import average


def test_a_slow_moving_average_forgets_its_start_weights(run):
    """With a constant decay of 0.9999 it would still be random after a few steps."""
    plain, averaged = (
        run(name, optimizer=dict(optimizer), schedule={"epochs": 4}).history
        for name, optimizer in (("plain", {}), ("averaged", {"ema_decay": 0.9999}))
    )
    assert averaged[-1]["val_loss"] < averaged[0]["val_loss"]
    assert averaged[-1]["val_loss"] < plain[0]["val_loss"]


def test_averages_the_weights_of_several_runs(run, arrays, split):
    """Weights are means; batch-norm statistics are measured anew on the averaged network's activations."""
    parts = {"schedule": {"epochs": 1, "runs": 2, "batch_size": 16, "precision": "fp32"}}
    found = [run(f"run{number}", schedule={**parts["schedule"], "runs": 1, "run": number}) for number in range(2)]
    made = average(recipe(**parts), arrays, split, found, torch.device("cpu"))
    one, other = (weights(fitted.model) for fitted in found)
    mean = weights(made.model)
    for key, value in mean.items():
        if "running" in key:
            assert not torch.equal(value, (one[key] + other[key]) / 2)
        elif "num_batches" not in key:
            torch.testing.assert_close(value, (one[key] + other[key]) / 2)
    assert [entry["run"] for entry in made.history] == [1, 2]
    assert not made.model.training
    assert all(torch.equal(mean[key], value) for key, value in weights(
        average(recipe(**parts), arrays, split, found, torch.device("cpu")).model
    ).items())  # fmt: skip


def test_each_run_of_a_recipe_has_its_own_seed(run):
    first, again, other = (
        weights(run(name, schedule={"epochs": 1, "run": number}).model)
        for name, number in (("first", 0), ("again", 0), ("other", 1))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith(".weight"))
