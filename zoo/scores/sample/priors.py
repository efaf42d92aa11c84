"""Prior shares of the kinds of cells, applied to a network's probabilities (Bayes' rule).

A network learns probabilities under the shares of its training set. For a sample with other shares,

    p(kind | picture) ∝ p_network(kind | picture) · prior(kind | sample) / prior_trained(kind)

(Saerens, Latinne & Decaestecker, Neural Computation 14:21, 2002, doi:10.1162/089976602753284446). Asking among fewer
kinds is the special case of a prior that is 0 for the others: the probabilities are conditioned, that is scaled to sum
to 1.
"""

from __future__ import annotations

import numpy as np


def apply_prior(probabilities: np.ndarray, prior: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Probabilities of a sample from those of a network.

    Args:
        probabilities: The network's, after temperature scaling, (n, K); rows sum to 1.
        prior: Weight of each kind in the sample, (K,), at least 0 and not all 0; only ratios count.
        trained: Share of each kind that the network was trained with, (K,), above 0.

    Returns:
        Probabilities (n, K), float64. A row of which the prior leaves nothing becomes the prior itself.

    Raises:
        ValueError: A weight is negative or not finite, all weights are 0, or a trained share is not above 0.

    Example:
        >>> apply_prior(np.array([[0.6, 0.4]]), np.array([0.1, 0.9]), np.array([0.5, 0.5])).round(3)
        array([[0.143, 0.857]])
    """
    given, prior, trained = (np.asarray(values, np.float64) for values in (probabilities, prior, trained))
    if not (np.isfinite(prior).all() and (prior >= 0).all() and prior.sum() > 0):
        raise ValueError("The weights of a sample must be numbers from 0, and not all 0.")
    if not (np.isfinite(trained).all() and (trained > 0).all()):
        raise ValueError("The trained shares must be numbers above 0.")
    weighted = given * (prior / trained)
    total = weighted.sum(1, keepdims=True)
    return np.where(total > 0, weighted / np.where(total > 0, total, 1), prior / prior.sum())


def flatten(shares: np.ndarray, exponent: float) -> np.ndarray:
    """Shares (K,) raised to `exponent` and scaled to a mean of 1: 1 leaves their ratios, 0 makes all alike."""
    raised = np.asarray(shares, np.float64) ** exponent
    return raised / raised.mean() if raised.size else raised


def largest_exponent(shares: np.ndarray, ratio: float) -> float:
    """The largest exponent up to 1 at which no flattened share is over `ratio` times another."""
    spread = np.log(np.max(shares) / np.min(shares))
    return float(min(1.0, np.log(ratio) / spread)) if spread > 0 else 1.0
