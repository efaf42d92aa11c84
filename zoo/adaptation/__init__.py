"""Adapt a network to a laboratory from a few of its cells."""

from typing import TYPE_CHECKING

from zoo.adaptation.bounds import MAX_PICTURES, MIN_CELLS, MIN_UNLABELLED
from zoo.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.adaptation.adapter import adapt, can_adapt
    from zoo.adaptation.last_layer import fit_layer
    from zoo.adaptation.result import Adapted
    from zoo.adaptation.selection import Choice
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "Adapted": "zoo.adaptation.result",
            "Choice": "zoo.adaptation.selection",
            "adapt": "zoo.adaptation.adapter",
            "can_adapt": "zoo.adaptation.adapter",
            "fit_layer": "zoo.adaptation.last_layer",
        },
    )

__all__ = ["MAX_PICTURES", "MIN_CELLS", "MIN_UNLABELLED", "Adapted", "Choice", "adapt", "can_adapt", "fit_layer"]
