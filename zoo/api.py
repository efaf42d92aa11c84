"""The shortest way to an answer: `zoo.classify("cell.png", "pbc8-efficientnet-lite0")`, from any number of threads."""

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
    """The one runtime that all callers of this process share, made when first asked for."""
    with _lock:
        if not _shared:
            _shared.append(Runtime())
        return _shared[0]


def classify(picture: Image.Image | bytes | Path | str, model: str) -> Prediction:
    """Classify a picture (decoded, or a file's content or path) with the entry called `model`.

    Raises ImageError (not a usable picture), EntryError (no such model) or BusyError (queue full).
    """
    return default_runtime().classify(get_entry(model), _picture(picture))


def explain(
    picture: Image.Image | bytes | Path | str, model: str, label: str | None = None, method: str | None = None
) -> Explanation:
    """The evidence in a picture for `label` (None: the predicted one), by a method of `zoo.attribution.METHODS`.

    Raises as `classify`, and ExplanationError.
    """
    return default_runtime().explain(get_entry(model), _picture(picture), label, method)


def _picture(picture: Image.Image | bytes | Path | str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return decode(Path(picture) if isinstance(picture, str) else picture)
