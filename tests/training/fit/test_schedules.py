"""Learning-rate schedules and early stopping."""

from __future__ import annotations

import numpy as np
import pytest

from training.fit.schedules import history_scale, learning_rates, should_stop
from training.recipe import Schedule


@pytest.mark.parametrize("rate", ["constant", "cosine", "one_cycle"])
def test_learning_rates(rate):
    course = learning_rates(Schedule(rate=rate, warmup_epochs=1), 0.1, 5, 10)
    assert course.shape == (50,)
    assert course.max() == pytest.approx(0.1, rel=0.05)
    assert (np.diff(course[:11]) > 0).all() or rate == "one_cycle"
    assert (course[-1] < 0.01) == (rate != "constant")
    assert (course >= 0).all()


def history(*losses):
    return [{"val_loss": loss, "val_accuracy": 1 - loss} for loss in losses]


def test_plateau_and_early_stopping_wait_for_their_patience():
    schedule = Schedule(rate="plateau", plateau_factor=0.1, plateau_patience=1, stop_patience=3)
    assert history_scale(schedule, history(0.5, 0.4, 0.3)) == 1
    assert history_scale(schedule, history(0.5, 0.5, 0.5)) == pytest.approx(0.1)
    assert not should_stop(schedule, history(0.5, 0.4, 0.41, 0.41))
    assert should_stop(schedule, history(0.5, 0.4, 0.41, 0.41, 0.41))
    other = schedule.model_copy(update={"stop_metric": "val_accuracy"})
    assert should_stop(other, history(0.5, 0.4, 0.41, 0.41, 0.41))


def test_stops_early_and_keeps_the_best_epoch(run):
    fitted = run(
        optimizer={"name": "momentum", "momentum": 0.0, "lr": 1e-9}, schedule={"epochs": 9, "stop_patience": 2}
    )
    assert len(fitted.history) < 9
    best = min(fitted.history, key=lambda entry: entry["val_loss"])
    assert fitted.best_epoch == best["epoch"]
