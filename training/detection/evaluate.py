"""Scoring of a detector's entry on evaluation sets of fields; what was found is stored with the entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from training.detection.card import render_detector_card
from training.detection.pictures.composed import compose
from zoo.detection.benchmarks import FieldBenchmark, result_rows
from zoo.detection.detector import Detector
from zoo.detection.scan import search
from zoo.detection.scoring import score_fields
from zoo.entry import Entry, load_entry
from zoo.entry import write as entry_files
from zoo.entry.schema import Metric

LEAST = 0.05  # confidence of what is stored: precision at higher recalls is of no use


def find_in_fields(
    detector: Detector, benchmark: FieldBenchmark, root: Path, progress: Callable[[Iterable], Iterable]
) -> pd.DataFrame:
    """Marked and found cells of all fields of an evaluation set.

    Args:
        detector: Finds the cells.
        benchmark: The evaluation set.
        root: Folder that holds the data sets.
        progress: Wraps the fields, for a progress bar.

    Raises:
        DataError: The data set is missing here.
        PictureError: A field cannot be read.
    """
    fields, composed = benchmark.fields(root), benchmark.definition.composed
    tables = []
    for field in progress(compose(fields, composed) if composed else fields):
        image = field.image()
        tables.append(result_rows(field, image, search(image, detector.forward, LEAST).found))
    return pd.concat(tables, ignore_index=True)


def evaluate_detector(entry: Entry, benchmark: FieldBenchmark, table: pd.DataFrame) -> dict[str, Metric]:
    """Score a table of `find_in_fields`, and store table, scores and card with the entry."""
    detector = entry.config.zoo.detector
    limits = dict(detector.limits) if detector else {}
    scores = score_fields(table, limits)
    entry_files.write_found(entry.folder, benchmark.name, table)
    known = {name: _plain(metrics) for name, metrics in load_entry(entry.folder).evaluation.fields.items()}
    entry_files.update_section(entry.folder, "fields", {**known, benchmark.name: _plain(scores)})
    entry_files.write_card(entry.folder, render_detector_card(load_entry(entry.folder)))
    return scores


def _plain(metrics: Mapping[str, Metric]) -> dict[str, dict[str, float | None]]:
    return {name: metric.model_dump() for name, metric in metrics.items()}
