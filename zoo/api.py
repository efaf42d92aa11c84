"""Classification and explanation in one call, with one runtime for the whole process.

Any number of threads may call these functions: `zoo.classify("cell.png", "pbc8-efficientnet-lite0")`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.entry import EntryError
from zoo.imaging.decode import Picture, from_array, read_image, read_picture
from zoo.scores.counts import KindCount, count_kinds
from zoo.scores.samples import Sample, find_sample
from zoo.serving.results import Explanation, Prediction
from zoo.sources.catalogue import DETECTOR, MODEL, NO_DETECTOR, get_detector, get_entry, usual_detector

if TYPE_CHECKING:
    from zoo.detection.detector import Cells, Detector
    from zoo.entry import Entry
    from zoo.serving.fields import NamedCells
    from zoo.serving.runtime import Runtime

Given = Image.Image | np.ndarray | bytes | Path | str

_lock = threading.Lock()
_shared: list[Runtime] = []
_detectors: dict[tuple[Path, object], Detector] = {}
WARM_UP_SIZE = (96, 96)  # of a blank picture
MAX_DETECTORS = 2  # the visitor's, and the one that classifiers cut cells by


def default_runtime() -> Runtime:
    """Return the runtime that all threads of this process share, made on the first call."""
    from zoo.serving.runtime import Runtime  # noqa: PLC0415 (imports torch, which takes seconds)

    with _lock:
        if not _shared:
            _shared.append(Runtime())
        return _shared[0]


def prepare() -> None:
    """Load what the first answer and the first map need: engine, usual model and usual detector.

    What cannot be loaded is left out: the answer that needs it says why.
    """
    runtime = default_runtime()
    with suppress(EntryError, OSError):
        if usual_detector() != NO_DETECTOR:
            default_detector(usual_detector())
    with suppress(EntryError, OSError):
        entry = get_entry(MODEL)
        runtime.load(entry)
        with suppress(RuntimeError, ValueError):  # no map of this picture: the others need what was loaded for it
            runtime.explain(entry, Image.new("RGB", WARM_UP_SIZE, "white"))


def running_runtime() -> Runtime | None:
    """Return the runtime that all threads share, None as long as nobody has used it."""
    return _shared[0] if _shared else None


def classify(picture: Given, model: str = MODEL, sample: Sample | str | None = None) -> Prediction:
    """Classify a picture of one cell; `find_cells` and `name_cells` are for fields.

    Args:
        picture: a Pillow picture, an array (see `zoo.imaging.decode.from_array`), or a file's content or path.
        model: an entry's id, see `list_entries`.
        sample: what the picture is of: a sample, its name or the path of a TOML file (see `zoo.scores.samples`); None
            for the model's usual one.

    Raises:
        PictureError: the file is no usable picture.
        EntryError: there is no such model, or it is unusable.
        SampleError: there is no such sample, or it rules out every class of the model.
        BusyError: the queue stayed full.

    Example:
        >>> prediction = zoo.classify("cell.png", "pbc8-efficientnet-lite0")
        >>> prediction.label, round(prediction.confidence, 2)
        ('neutrophil', 0.99)
    """
    return default_runtime().classify(get_entry(model), _picture(picture), _sample(sample))


def find_cells(picture: Given, detector: str = DETECTOR, um_per_px: float | None = None) -> Cells:
    """Find the white cells, red cells and platelets of a field.

    Args:
        picture: as for `classify`.
        detector: a detector's id, see `zoo.sources.catalogue.list_detectors`.
        um_per_px: micrometres a pixel; None: as the file states them, else by the red cells.

    Raises:
        PictureError: the file is no usable picture.
        EntryError: there is no such detector, or it is unusable.

    Example:
        >>> cells = zoo.find_cells("field.jpg")
        >>> cells.counts
        {'white cell': 1, 'red cell': 16, 'platelet': 2}
    """
    read = _read(picture)
    return default_detector(detector).find(read.image, um_per_px, read.um_per_px)


def name_cells(
    picture: Given,
    model: str = MODEL,
    sample: Sample | str | None = None,
    detector: str = DETECTOR,
    um_per_px: float | None = None,
) -> NamedCells:
    """Find the cells of a field and classify the white ones.

    Args:
        picture: as for `classify`.
        model: id of the classifier.
        sample: as for `classify`.
        detector: as for `find_cells`.
        um_per_px: as for `find_cells`.

    Raises:
        PictureError: the file is no usable picture.
        EntryError: there is no such model or detector, or it is unusable.
        SampleError: as for `classify`.
        BusyError: the queue stayed full.
    """
    from zoo.serving.fields import name_cells as named  # noqa: PLC0415

    read, found = _read(picture), default_detector(detector)
    return named(default_runtime(), get_entry(model), found, read, _sample(sample), um_per_px)


def default_detector(detector: str | Entry = DETECTOR) -> Detector:
    """Return the detector that all threads of this process share, loaded on the first call.

    Args:
        detector: its id, which is looked up in every source, or its entry.

    Raises:
        EntryError: There is no such detector, or it is unusable.
    """
    from zoo.detection.detector import Detector  # noqa: PLC0415 (imports torch, which takes seconds)

    entry = get_detector(detector) if isinstance(detector, str) else detector
    key = (entry.folder, entry.weights)
    with _lock:
        if key not in _detectors:
            made = Detector(entry)
            while len(_detectors) >= MAX_DETECTORS:
                del _detectors[next(iter(_detectors))]  # the oldest: a renewed one may have replaced it
            _detectors[key] = made
        return _detectors[key]


def explain(
    picture: Given,
    model: str,
    label: str | None = None,
    method: str | None = None,
    sample: Sample | str | None = None,
) -> Explanation:
    """Explain the classification of a picture.

    Args:
        picture: a Pillow picture, an array (see `zoo.imaging.decode.from_array`), or a file's content or path.
        model: an entry's id, see `list_entries`.
        label: class to explain; None for the predicted one.
        method: a key of `zoo.attribution.METHODS`; None for the model's default.
        sample: as for `classify`; it decides which class is the predicted one.

    Raises:
        PictureError: the file is no usable picture.
        EntryError: there is no such model or label, or the model is unusable.
        SampleError: there is no such sample, or it rules out every class of the model.
        ExplanationError: the method cannot explain this model.
        BusyError: the queue stayed full.

    Example:
        >>> image = zoo.decode(Path("cell.png"))
        >>> explanation = zoo.explain(image, "pbc8-efficientnet-lite0", method="layer-cam")
        >>> zoo.overlay(image, explanation.values).save("map.png")
    """
    entry = get_entry(model)
    return default_runtime().explain(entry, _picture(picture), label, method, sample=_sample(sample))


def count_cells(predictions: Iterable[Prediction], model: str) -> list[KindCount]:
    """Count the kinds of the cells of one slide.

    Args:
        predictions: answers of `classify`, one a cell; those without a recognisable cell are not counted.
        model: id of the entry that gave them.

    Returns:
        For each kind its count and share, with 95 % limits for chance and the model's errors, and for chance alone.

    Raises:
        EntryError: there is no such model.

    Example:
        >>> answers = [zoo.classify(path, "champion8") for path in Path("slide").glob("*.png")]
        >>> for kind in zoo.count_cells(answers, "champion8"):
        ...     print(kind.kind, kind.count, f"{kind.share:.0%} ({kind.low:.0%} to {kind.high:.0%})")
    """
    entry = get_entry(model)
    answers = [prediction.label for prediction in predictions if prediction.warning is None]
    return count_kinds(answers, entry.labels, entry.count_error)


def _sample(sample: Sample | str | None) -> Sample | None:
    return find_sample(sample) if isinstance(sample, str) else sample


def _picture(picture: Given) -> Image.Image:
    return _read(picture).image


def _read(picture: Given) -> Picture:
    if isinstance(picture, Image.Image):
        return read_image(picture)
    if isinstance(picture, np.ndarray):
        return Picture(from_array(picture))
    return read_picture(Path(picture) if isinstance(picture, str) else picture)
