"""Classification and explanation in one call, with one runtime for the whole process.

Any number of threads may call these functions: `zoo.classify("cell.png", "pbc8-efficientnet-lite0")`.
"""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image

from zoo.imaging.decode import decode
from zoo.serving.runtime import Explanation, Prediction, Runtime
from zoo.sources.catalogue import get_entry

_lock = threading.Lock()
_shared: list[Runtime] = []


def default_runtime() -> Runtime:
    """Return the runtime that all threads of this process share, made on the first call."""
    with _lock:
        if not _shared:
            _shared.append(Runtime())
        return _shared[0]


def classify(picture: Image.Image | bytes | Path | str, model: str) -> Prediction:
    """Classify a picture.

    Args:
        picture: a decoded picture, or a file's content or path.
        model: an entry's id, see `list_entries`.

    Raises:
        ImageError: the file is no usable picture.
        EntryError: there is no such model, or it is unusable.
        BusyError: the queue stayed full.

    Example:
        >>> prediction = zoo.classify("cell.png", "pbc8-efficientnet-lite0")
        >>> prediction.label, round(prediction.confidence, 2)
        ('neutrophil', 0.99)
    """
    return default_runtime().classify(get_entry(model), _picture(picture))


def explain(
    picture: Image.Image | bytes | Path | str, model: str, label: str | None = None, method: str | None = None
) -> Explanation:
    """Explain the classification of a picture.

    Args:
        picture: a decoded picture, or a file's content or path.
        model: an entry's id, see `list_entries`.
        label: class to explain; None for the predicted one.
        method: a key of `zoo.attribution.METHODS`; None for the model's default.

    Raises:
        ImageError: the file is no usable picture.
        EntryError: there is no such model or label, or the model is unusable.
        ExplanationError: the method cannot explain this model.
        BusyError: the queue stayed full.

    Example:
        >>> image = zoo.decode(Path("cell.png"))
        >>> explanation = zoo.explain(image, "pbc8-efficientnet-lite0", method="layer-cam")
        >>> zoo.overlay(image, explanation.values).save("map.png")
    """
    return default_runtime().explain(get_entry(model), _picture(picture), label, method)


def _picture(picture: Image.Image | bytes | Path | str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return decode(Path(picture) if isinstance(picture, str) else picture)
