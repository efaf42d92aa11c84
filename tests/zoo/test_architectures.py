"""Networks of our own: their published size, and all that timm and the zoo expect of a network."""

from __future__ import annotations

import pkgutil

import pytest
import timm
import torch

import zoo.architectures
from zoo.gradcam import gradcam

PARAMETERS = {"cnn60": 306_948}  # with four classes, as published
OURS = [module.name for module in pkgutil.iter_modules(zoo.architectures.__path__)]


def test_every_file_is_checked_here():
    assert set(OURS) == set(PARAMETERS)


@pytest.fixture(params=OURS)
def model(request):
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=4).eval()


def test_parameters_are_the_published_ones(model):
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[type(model).__name__.lower()]


def test_it_splits_into_features_and_head(model):
    batch = torch.randn(2, *model.pretrained_cfg["input_size"])
    features = model.forward_features(batch)
    assert features.shape[1] == model.num_features
    assert torch.equal(model(batch), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert gradcam(model, batch, None).maps.shape == (2, *features.shape[2:])


def test_its_classifier_can_be_replaced(model):
    model.reset_classifier(7)
    assert model(torch.randn(1, *model.pretrained_cfg["input_size"])).shape == (1, 7)
    model.reset_classifier(0)
    assert model(torch.randn(1, *model.pretrained_cfg["input_size"])).shape == (1, model.head_hidden_size)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="no option nonsense"):
        timm.create_model("cnn60", nonsense=1)
