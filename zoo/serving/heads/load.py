"""Loading of a classical head that was checked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from zoo.entry import HEAD, Entry, EntryError
from zoo.serving.heads.estimators import check_head
from zoo.serving.heads.graph import TREE, open_zip, read_graph
from zoo.serving.heads.model import ClassicalHead, Classifier

# types that skops does not trust by itself
TRUSTED = [TREE, "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"]


def check_head_file(path: Path, classes: int, width: int | None = None) -> int:
    """Check a classifier's file without building anything.

    Args:
        path: A .skops file.
        classes: Number of the entry's labels.
        width: Length of the vectors that the entry's network computes; None: not known.

    Returns:
        Length of the vectors that it classifies.

    Raises:
        EntryError: It is missing, damaged, too large, holds other types than heads have, contradicts itself, or does
            not fit the labels or the network.
    """
    try:
        with open_zip(path) as file:
            return check_head(read_graph(file), classes, width)
    except EntryError as error:
        raise EntryError(f"{path.name} cannot be loaded: {error}") from error
    # zipfile, zlib and numpy raise much on damaged files
    except Exception as error:
        raise EntryError(f"{path.name} cannot be loaded: it is damaged.") from error


def check_storable(head: Classifier, classes: int) -> None:
    """Check that a fitted classifier would be loaded again if it were stored. Raises EntryError with the reason."""
    import skops.io  # noqa: PLC0415

    with open_zip(io.BytesIO(skops.io.dumps(head))) as file:
        check_head(read_graph(file), classes)


def read_head(path: Path, classes: int, width: int | None = None) -> Classifier:
    """Read a classifier. Arguments and errors are those of `check_head_file`.

    skops and scikit-learn are imported here: importing them takes a third of the start-up time, and most models need
    neither.
    """
    length = check_head_file(path, classes, width)
    import skops.io  # noqa: PLC0415

    try:
        head: Classifier = skops.io.load(path, trusted=TRUSTED)
        with threadpool_limits(1):
            tried = head.predict_proba(np.zeros((1, length), np.float32))
        if tried.shape != (1, len(head.classes_)) or not np.isfinite(tried).all():
            raise EntryError(f"{path.name} cannot be loaded: it gives no probabilities.")
    except EntryError:
        raise
    # what was checked may still be of another scikit-learn
    except Exception as error:
        raise EntryError(f"{path.name} cannot be loaded: it is damaged, or of another scikit-learn.") from error
    return head


def load_head(entry: Entry, width: int) -> ClassicalHead:
    """Load an entry's classical head for vectors of `width` numbers. Raises EntryError if it does not fit."""
    classes = entry.config.num_classes
    return ClassicalHead(read_head(entry.folder / HEAD, classes, width), classes)
