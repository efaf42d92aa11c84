"""Attribution methods: where in a picture the evidence for a class is."""

from zoo.attribution.methods import (
    DEFAULT,
    METHODS,
    MODEL_FREE,
    PREDICTED,
    Cams,
    ExplanationError,
    explain_batch,
    method_of,
    steps,
)

__all__ = [
    "DEFAULT",
    "METHODS",
    "MODEL_FREE",
    "PREDICTED",
    "Cams",
    "ExplanationError",
    "explain_batch",
    "method_of",
    "steps",
]
