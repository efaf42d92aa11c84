"""Adapt a network to a laboratory from a few of its cells."""

from zoo.adaptation.adapter import LEAST, MOST, Adapted, Choice, adapt, augmented_views, can_adapt, fit_layer

__all__ = ["LEAST", "MOST", "Adapted", "Choice", "adapt", "augmented_views", "can_adapt", "fit_layer"]
