"""Precision of a training: as the recipe says, else measured and kept; emulated bf16 is not even tried."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.fit.drawn import recipe
from training.fit.processor.devices import make_accelerator
from training.fit.processor.precision import with_precision
from training.fit.state import CHECKPOINT
from zoo.serving.devices import bf16_is_faster, has_native_bf16

AUTO = {"schedule": {"precision": "auto"}}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Stop(Exception):
    pass


def stop(figures):
    raise Stop


class Recorder(torch.nn.Module):
    """A network that only notes the number formats it is run in."""

    def __init__(self):
        super().__init__()
        self.formats = []

    def forward(self, pictures):
        self.formats.append(torch.is_autocast_enabled("cpu"))
        return pictures


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_recipe_that_names_a_precision_keeps_it(precision):
    named = recipe(schedule={"precision": precision})
    assert with_precision(named, make_accelerator(CPU)) == named


def test_auto_takes_what_a_trial_finds_and_says_so(capsys):
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    chosen = with_precision(recipe(**AUTO), make_accelerator(CPU)).schedule
    assert torch.rand(1) == drawn, "random numbers go on as without the trial"
    told = capsys.readouterr().err
    assert chosen.precision in ("bf16", "fp32")
    assert chosen.channels_last in (True, False) and chosen.fast_depthwise is False, "it has no such convolutions"
    assert told.startswith("CPU (") and f", {chosen.precision}, channels" in told
    assert "fp32, channels_last" in told and f"{chosen.precision}, channels first" in told
    assert ("bf16, channels_last" in told) == has_native_bf16(CPU)
    assert ("It has no bf16 arithmetic of its own" in told) != has_native_bf16(CPU)


def test_a_trial_is_kept_and_made_anew_if_damaged(cache, capsys):
    first = with_precision(recipe(**AUTO), make_accelerator(CPU))
    assert "the fastest of a trial" in capsys.readouterr().err
    (kept,) = (cache / "trials").iterdir()
    assert with_precision(recipe(**AUTO), make_accelerator(CPU)) == first
    assert "the fastest of an earlier trial" in capsys.readouterr().err
    for damage in ("", "{}", '{"steps": [{"seconds": 1, "precision": "int3"}]}', '{"steps": [{"speed": 1}]}'):
        kept.write_text(damage)
        with_precision(recipe(**AUTO), make_accelerator(CPU))
        assert "the fastest of a trial" in capsys.readouterr().err
    with_precision(recipe(schedule={"precision": "auto", "batch_size": 4}), make_accelerator(CPU))
    assert len(list((cache / "trials").iterdir())) == 2, "another batch is another trial"


def test_what_is_kept_decides_also_the_memory_format_and_the_gradients(cache, capsys):
    """Half as much time in bf16 is a gain; a hundredth of it in another memory format is none."""
    with_precision(recipe(**AUTO), make_accelerator(CPU))
    (kept,) = (cache / "trials").iterdir()
    ways = [("fp32", True, 2.0), ("bf16", True, 1.0), ("bf16", False, 0.99)]
    rows = [{"precision": p, "channels_last": c, "fast_depthwise": False, "seconds": s} for p, c, s in ways]
    for seconds, last in ((0.99, True), (0.5, False)):
        rows[-1]["seconds"] = seconds
        kept.write_text(json.dumps({"steps": rows}))
        chosen = with_precision(recipe(**AUTO), make_accelerator(CPU)).schedule
        assert (chosen.precision, chosen.channels_last) == ("bf16", last)


def test_emulated_bf16_is_not_tried(monkeypatch, capsys):
    """Neither in training nor in inference: a single picture took 46 seconds."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    network = Recorder()
    assert not bf16_is_faster(network, CPU, (3, 8, 8), 0.0)
    assert not network.formats
    assert with_precision(recipe(**AUTO), make_accelerator(CPU)).schedule.precision == "fp32"
    told = capsys.readouterr().err
    assert "It has no bf16 arithmetic of its own" in told and "bf16, channels" not in told


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_an_unfinished_training_goes_on_in_its_precision(run, tmp_path, precision):
    with pytest.raises(Stop):
        run("work", after_epoch=stop, schedule={"precision": precision})
    going_on = with_precision(recipe(**AUTO), make_accelerator(CPU), tmp_path / "work" / CHECKPOINT)
    assert going_on.schedule.precision == precision
    assert len(run("work", resume=True, **AUTO).history) == 3, "the precision is no part of what decides the weights"
