"""Networks of our own: their published size, and all that timm and the zoo expect of a network."""

from __future__ import annotations

import pkgutil

import pytest
import timm
import torch

import zoo.architectures
from zoo.architectures import is_own
from zoo.architectures.transfer import build_head
from zoo.attribution import PREDICTED, explain_batch

# with four classes; the first two as published, of the others no figure was
PARAMETERS = {
    "cnn60": 306_948,
    "cnn5_128": 36_752_644,
    "cnn5_224": 23_706_628,
    "minicnn": 2_333_348,
    "miniresnet": 897_444,
    "miniinception": 1_050_164,
    "pixels": 196_612,
    "inception_v3_keras": 21_793_764,
    "colour_granularity": 176,
    "transfer": 23_516_228,
}
OURS = [name for name in timm.list_models() if is_own(name)]


def test_every_file_registers_a_network():
    assert set(PARAMETERS) <= set(OURS)
    files = {m.name for m in pkgutil.iter_modules(zoo.architectures.__path__) if not m.name.startswith("_")}
    assert files == {timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in OURS}


@pytest.fixture(params=OURS)
def model(request):
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=4).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name):
    model = timm.create_model(name, num_classes=4)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_batch_norm_statistics_are_the_published_ones():
    model = timm.create_model("cnn5_128", num_classes=4)
    statistics = [value for key, value in model.state_dict().items() if key.endswith(("running_mean", "running_var"))]
    assert sum(value.numel() for value in statistics) == 2_432


def test_keras_inception_leaves_the_padding_out_of_its_means():
    """Means of a plain picture are the same at its border as inside; weights are those of timm's own."""
    state = timm.create_model("inception_v3", num_classes=4).state_dict()
    model = timm.create_model("inception_v3_keras", num_classes=4).eval()
    model.load_state_dict(state)
    seen = []
    for block in (model.Mixed_5b, model.Mixed_6b, model.Mixed_7b):
        block.branch_pool.conv.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
        block(torch.ones(1, block.branch_pool.conv.in_channels, 7, 7))
    assert len(seen) == 3
    assert all(torch.allclose(means, torch.ones_like(means)) for means in seen)


def test_model_is_features_and_head(model):
    batch = torch.randn(2, *model.pretrained_cfg["input_size"])
    features = model.forward_features(batch)
    assert features.shape[1] == model.num_features
    assert torch.equal(model(batch), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert explain_batch(model, batch, torch.full((2,), PREDICTED)).maps.shape == (2, *features.shape[2:])


def test_classifier_can_be_replaced(model):
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 7
    assert model(torch.randn(1, *model.pretrained_cfg["input_size"])).shape == (1, 7)
    model.reset_classifier(0)
    assert model(torch.randn(1, *model.pretrained_cfg["input_size"])).shape == (1, model.head_hidden_size)


@pytest.mark.parametrize("name", OURS)
def test_refuses_an_unknown_option(name):
    with pytest.raises(TypeError, match="no option nonsense"):
        timm.create_model(name, nonsense=1)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_vit2"])
@pytest.mark.parametrize("head", [["gap"], ["flatten", "batchnorm", "dense 16", "relu", "dropout 0.5"]])
def test_any_backbone_takes_a_head(backbone, head):
    side = {"test_vit": 160, "test_vit2": 64}.get(backbone, 96)
    model = timm.create_model("transfer", backbone=backbone, head=head, input_size=[side, side], num_classes=3).eval()
    batch = torch.randn(2, 3, side, side)
    features = model.forward_features(batch)
    assert features.ndim == 4
    assert features.shape[1] == model.num_features
    assert torch.allclose(model(batch), model.forward_rest(model.forward_fixed(batch)), atol=1e-5)
    assert explain_batch(model, batch, torch.full((2,), PREDICTED)).maps.any()


def test_a_published_head_has_its_published_size():
    """System E's, on VGG16's 4×4×512 map: batch norm 16,384 and 512, dense 256, 128, 64 and 4."""
    words = ["flatten", "batchnorm", "dense 256", "relu", "dropout 0.7", "batchnorm", "dense 128", "relu", "dense 64"]
    fixed, rest, width = build_head(words, (512, 4, 4))
    assert not list(fixed.parameters())
    assert width == 64
    assert sum(p.numel() for p in rest.parameters()) == 2 * 8192 + 8193 * 256 + 2 * 256 + 257 * 128 + 129 * 64


@pytest.mark.parametrize("words", [["dense 3"], ["gap", "gap"], ["relu"], ["gap", "nonsense"]])
def test_refuses_a_senseless_head(words):
    with pytest.raises(ValueError, match="head"):
        build_head(words, (8, 2, 2))
