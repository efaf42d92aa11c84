"""Networks as the methods see them: passes without gradients, and the torch module for everything else.

Methods take a plain timm model, or a `Network`, whose passes may be computed by another library than torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")

Objective = Callable[["torch.Tensor"], "torch.Tensor"]  # logits (B, classes) → score to explain (B,)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Results of one pass, without a graph.

    Attributes:
        logits: float32 (B, classes).
        features: the backbone's output, in its own layout.
        vectors: float32 (B, d) before the last layer; None where they were not asked for.
    """

    logits: torch.Tensor
    features: torch.Tensor
    vectors: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head that averages the feature map over all places and applies one linear layer.

    Its gradients are known without a backward pass.

    Attributes:
        weight: float32 (classes, C).
        bias: float32 (classes,).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, classes) of feature maps (B, C, h, w)."""
        return features.float().mean((2, 3)) @ self.weight.T + self.bias

    def gradient(self, features: torch.Tensor, logits: torch.Tensor, objective: Objective) -> torch.Tensor:
        """Compute the gradient (B, C, h, w) of an objective by the chain rule: the same at every place.

        Args:
            features: feature maps (B, C, h, w).
            logits: their logits (B, classes).
            objective: score whose gradient is wanted.
        """
        with torch.enable_grad():
            leaf = logits.detach().float().requires_grad_()
            (by_logit,) = torch.autograd.grad(objective(leaf).sum(), leaf)
        height, width = features.shape[2:]
        return (by_logit @ self.weight / (height * width))[:, :, None, None].expand(features.shape)


class Network(Protocol):
    """A network whose passes may be computed by another library than torch."""

    @property
    def module(self) -> nn.Module:
        """The same network in torch, for gradients and for layers before the last."""

    @property
    def linear_head(self) -> LinearHead | None:
        """The head, where it is known to be linear; features are (B, C, h, w) then."""

    def run(self, batch: torch.Tensor, vectors: bool = False) -> Outputs:
        """Run a normalised batch (B, 3, H, W), with the vectors before the last layer if wanted."""


Model: TypeAlias = "nn.Module | Network"


def module_of(model: Model) -> nn.Module:
    """Return the torch module of a model."""
    return model if isinstance(model, nn.Module) else model.module


def linear_head_of(model: Model) -> LinearHead | None:
    """Return the linear head of a model, where it is known to have one."""
    return None if isinstance(model, nn.Module) else model.linear_head


def logits_of(model: Model, batch: torch.Tensor) -> torch.Tensor:
    """Compute logits float32 (B, classes) of a normalised batch (B, 3, H, W); any torch module will do."""
    if not isinstance(model, nn.Module):
        return model.run(batch).logits
    with torch.no_grad():
        logits: torch.Tensor = model(batch.contiguous(memory_format=torch.channels_last))
        return logits.float()


def run(model: Model, batch: torch.Tensor, vectors: bool = False) -> Outputs:
    """Run a normalised batch (B, 3, H, W) without a graph, with the vectors before the last layer if wanted."""
    if not isinstance(model, nn.Module):
        return model.run(batch, vectors)
    network: Any = model  # nn.Module does not declare timm's methods
    with torch.no_grad():
        features = network.forward_features(batch.contiguous(memory_format=torch.channels_last))
        before = network.forward_head(features, pre_logits=True).float() if vectors else None
        return Outputs(network.forward_head(features).float(), features, before)
