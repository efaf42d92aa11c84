"""Networks are measured before they are built."""

from __future__ import annotations

import resource
import time

import pytest
import timm
import torch
from torch import nn

from tests.hostile import change_config
from tests.making import ARCHITECTURES, make_entry
from zoo.entry import BrokenEntry, EntryError, read_entry
from zoo.serving.models.footprint import measure
from zoo.serving.models.loading import load_model


def sizes(model, *shape):
    """Bytes of the results of a network's layers that have weights."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, result: found.append(4 * result.numel()))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return sum(found)


@pytest.mark.parametrize("architecture", ["cnn60", "test_resnet", "test_efficientnet"])
def test_what_is_measured_is_what_a_network_takes(architecture):
    shape = ARCHITECTURES[architecture]["input_size"]
    found = measure(architecture, 4, {}, shape, 10**6)
    model = timm.create_model(architecture, num_classes=4)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.width == model.get_classifier().in_features
    # sums and pooling, which keeps the places of its maxima, come on top
    assert 1 <= found.activation_bytes / sizes(model, *shape) < 3


def test_a_refusal_takes_neither_memory_nor_long():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(EntryError, match="MB for one picture"):
        measure("test_vit", 4, {"img_size": 1024, "patch_size": 1, "pos_embed": "none"}, (3, 1024, 1024), 10**9)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert time.monotonic() - start < 30


def test_measuring_changes_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    measure("test_resnet", 7, {}, (3, 40, 40), 10**6)
    assert torch.equal(torch.rand(3), expected)


def test_the_owner_sets_the_limits(tmp_path, monkeypatch):
    folder = make_entry(tmp_path / "mine", "cnn60")
    monkeypatch.setenv("HEMAZOO_ACTIVATIONS_MB", "1")
    with pytest.raises(EntryError, match=r"more than 1 MB for one picture.*HEMAZOO_ACTIVATIONS_MB"):
        load_model(read_entry(folder))
    monkeypatch.delenv("HEMAZOO_ACTIVATIONS_MB")
    assert load_model(read_entry(folder))
    change_config(folder, lambda config: config["pretrained_cfg"].update(input_size=[3, 1100, 1100]))
    assert isinstance(read_entry(folder), BrokenEntry)
    monkeypatch.setenv("HEMAZOO_INPUT_SIDE", "1200")
    assert read_entry(folder).usable
