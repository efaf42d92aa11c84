"""One optimisation step: accumulated gradients, L2, and too little memory."""

from __future__ import annotations

import pytest
import torch

from tests.training.fit.drawn import PARTED, PLAIN, equal_but_for_rounding
from training.fit.networks.network import build_model
from training.fit.stopping import FitError


def test_accumulated_gradients_equal_those_of_the_batch(run):
    """Without batch norm the weights are the same."""
    whole = run("one", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}).model
    parts = run("two", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1, "accumulate": 4}).model
    assert equal_but_for_rounding(whole, parts)


def test_l2_shrinks_weights_but_not_biases(run):
    def size(fitted):
        return {key: value.detach().square().sum().item() for key, value in fitted.model.named_parameters()}

    plain = size(run("plain", optimizer={**PLAIN, "lr": 0.01}))
    small = size(run("small", optimizer={**PLAIN, "lr": 0.01, "l2": 0.5}))
    convolutions = [key for key in plain if key.endswith("conv1.weight")]
    assert convolutions
    assert all(small[key] < 0.9 * plain[key] for key in convolutions)


class Short:
    """A memory for a limited number of pictures."""

    def __init__(self, model, room):
        self.forward, self.room = model.forward, room

    def __call__(self, batch):
        if torch.is_grad_enabled() and len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.forward(batch)


def with_memory_for(room):
    """A builder of networks that run out of memory with more than `room` pictures."""

    def build(model, classes, start=None):
        network = build_model(model, classes)
        network.forward = Short(network, room)
        return network

    return build


def test_out_of_memory_halves_the_pictures_run_at_a_time(run, capsys):
    whole = run("enough", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}).model
    found = run("short", model=PARTED, optimizer=PLAIN, schedule={"epochs": 1}, build=with_memory_for(5)).model
    said = capsys.readouterr().err
    assert "continuing with 8 pictures at a time, 2 parts per batch" in said
    assert "continuing with 4 pictures at a time, 4 parts per batch" in said
    assert said.count("Out of memory") == 2
    assert equal_but_for_rounding(whole, found)


def test_reports_memory_too_small_for_two_pictures(run):
    with pytest.raises(FitError, match="not enough memory for 2 pictures at a time"):
        run(build=with_memory_for(1))


def test_other_errors_are_not_taken_for_out_of_memory(run):
    def build(model, classes, start=None):
        network = build_model(model, classes)
        network.forward = lambda batch: (_ for _ in ()).throw(RuntimeError("something else"))
        return network

    with pytest.raises(RuntimeError, match="something else"):
        run(build=build)
