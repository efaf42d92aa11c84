"""Fit a new last layer that stays near the old one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from zoo.adaptation.source import SourceNetwork

MAX_STEPS = 60  # of the optimiser
PSEUDO_LABEL_STRENGTH = 0.1  # penalty where the labels are the model's own answers
PSEUDO_LABEL_SHARE = 0.5  # of the answers of each class, the most confident, that serve as labels

LastLayer = tuple[torch.Tensor, torch.Tensor]  # weight (classes, d) and bias (classes,), float64


def fit_layer(
    vectors: torch.Tensor, numbers: np.ndarray, weight: torch.Tensor, bias: torch.Tensor, strength: float
) -> LastLayer:
    """Fit a multinomial regression that is pulled towards given weights (Li et al. 2018, arXiv:1802.01483).

    Classes have equal weight in the loss.

    Args:
        vectors: Feature vectors (n, views, d), float64.
        numbers: Class number (n,) of each.
        weight: Weights (classes, d) to start from.
        bias: Biases (classes,) to start from.
        strength: Factor of the squared distance from the start, in units of the vectors' mean square length.

    Returns:
        The fitted weight and bias.
    """
    views = vectors.shape[1]
    inputs = vectors.reshape(-1, vectors.shape[2]).clone()
    targets = torch.from_numpy(np.repeat(numbers, views).astype(np.int64))
    counts = torch.bincount(targets, minlength=len(bias)).double()
    row_weights = 1 / (counts[targets] * (counts > 0).sum())
    length = inputs.square().sum(1).mean()
    change = torch.zeros_like(weight, requires_grad=True)
    shift = torch.zeros_like(bias, requires_grad=True)
    optimiser = torch.optim.LBFGS([change, shift], max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ (weight + change).T + bias + shift
        data_loss = (row_weights * nn.functional.cross_entropy(logits, targets, reduction="none")).sum()
        penalty = strength * (length * change.square().sum() + shift.square().sum()) / len(bias)
        total = data_loss + penalty
        total.backward()
        return total

    optimiser.step(loss)
    return (weight + change).detach(), (bias + shift).detach()


def fit_on_own_answers(vectors: torch.Tensor, source: SourceNetwork) -> LastLayer:
    """Fit a last layer on the model's own most confident answers (pseudo-labels, Lee 2013).

    The same share of each predicted class is used. Where all these answers are of one class, the old layer stays.
    """
    weight, bias = source.weight, source.bias
    logits = torch.from_numpy(log_probabilities(vectors, weight, bias))
    confidence, answers = logits.softmax(1).max(1)
    rows: list[int] = []
    for number in range(source.classes):
        predicted = torch.nonzero(answers == number)[:, 0]
        count = max(1, round(PSEUDO_LABEL_SHARE * len(predicted)))
        rows += predicted[confidence[predicted].argsort(descending=True)][:count].tolist()
    if len(set(answers[rows].tolist())) < 2:
        return weight, bias
    return fit_layer(vectors[rows], answers[rows].numpy(), weight, bias, PSEUDO_LABEL_STRENGTH)


def log_probabilities(vectors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Log probabilities (n, classes) of vectors (n, views, d); probabilities are averaged over the views."""
    by_view = (vectors @ weight.T + bias).log_softmax(2)
    return (by_view.logsumexp(1) - np.log(by_view.shape[1])).numpy()
