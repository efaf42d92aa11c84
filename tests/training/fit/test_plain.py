"""Networks that are written as timm's own."""

from __future__ import annotations

import pytest
import timm
import torch

from training.fit.networks.network import build_model
from training.fit.networks.plain import plain_network
from training.recipe import Model


def trained(architecture: str, head: list[str], side: int = 64) -> tuple[Model, torch.nn.Module]:
    torch.manual_seed(0)
    model = Model(architecture=architecture, head=head, input_size=(side, side))
    return model, build_model(model, 4).eval()


@pytest.mark.parametrize(
    ("architecture", "side"), [("test_resnet", 64), ("test_efficientnet", 48), ("tf_efficientnet_lite0", 64)]
)
def test_a_pooled_head_is_timms_own(architecture, side):
    model, network = trained(architecture, ["gap", "dropout 0.2"], side)
    found = plain_network(model, network)
    assert found is not None
    plain, arguments = found
    again = timm.create_model(architecture, num_classes=4, **arguments).eval()
    again.load_state_dict(plain.state_dict())
    pictures = torch.randn(3, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(again(pictures), network(pictures), atol=1e-5)


@pytest.mark.parametrize("head", [["gap", "dense 8", "relu"], ["flatten"], ["batchnorm", "gap"]])
def test_other_heads_need_layers_of_ours(head):
    assert plain_network(*trained("test_resnet", head)) is None


def test_what_timms_head_computes_otherwise_is_kept_as_it_is():
    """ConvNeXt normalises after pooling."""
    assert plain_network(*trained("test_convnext", ["gap", "dropout 0.2"])) is None


def test_training_goes_on_from_a_plain_network():
    model, network = trained("test_resnet", ["gap", "dropout 0.2"])
    found = plain_network(model, network)
    assert found is not None
    again = build_model(model.model_copy(update={"weights": "an-entry"}), 4, found[0])
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())
