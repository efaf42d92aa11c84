"""The device and precision that the environment asks for."""

from __future__ import annotations

import pytest
import torch

from zoo.entry import EntryError
from zoo.serving.devices import default_precision, resolve_device
from zoo.serving.runtime import Runtime


def test_the_environment_names_the_device_of_auto(monkeypatch):
    monkeypatch.setenv("HEMAZOO_DEVICE", "cpu")
    assert resolve_device() == torch.device("cpu")
    monkeypatch.setenv("HEMAZOO_DEVICE", "abacus")
    with pytest.raises(EntryError, match="abacus"):
        resolve_device()
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU here")
def test_refuses_an_apple_gpu_that_is_not_there():
    with pytest.raises(EntryError, match="no device mps"):
        resolve_device("mps")


def test_the_environment_sets_the_default_precision(monkeypatch):
    monkeypatch.setenv("HEMAZOO_PRECISION", "fp32")
    with Runtime("cpu") as runtime, Runtime("cpu", "bf16") as other:
        assert runtime.precision == "fp32"
        assert other.precision == "bf16"
    monkeypatch.setenv("HEMAZOO_PRECISION", "fp8")
    assert default_precision() == "auto"
