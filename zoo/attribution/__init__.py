"""Attribution methods: where in a picture the evidence for a class is."""

from zoo.attribution.features import PREDICTED, ExplanationError
from zoo.attribution.methods import Cams, explain_batch, steps
from zoo.attribution.registry import DEFAULT, METHODS, MODEL_FREE, Method, method_of, register_method

__all__ = [
    "DEFAULT",
    "METHODS",
    "MODEL_FREE",
    "PREDICTED",
    "Cams",
    "ExplanationError",
    "Method",
    "explain_batch",
    "method_of",
    "register_method",
    "steps",
]
