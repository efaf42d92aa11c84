"""Adapt a network to a laboratory from a few of its cells."""

from zoo.adaptation.adapter import MAX_PICTURES, MIN_CELLS, MIN_UNLABELLED, adapt, can_adapt
from zoo.adaptation.last_layer import fit_layer
from zoo.adaptation.result import Adapted
from zoo.adaptation.selection import Choice

__all__ = ["MAX_PICTURES", "MIN_CELLS", "MIN_UNLABELLED", "Adapted", "Choice", "adapt", "can_adapt", "fit_layer"]
