"""Stored predictions of an entry: one parquet table a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.entry.files import DECIDING, EVIDENCE, EntryError, predictions_file
from zoo.entry.model import Entry
from zoo.entry.schema import Benchmark
from zoo.lazy import lazy_module
from zoo.limits import PREDICTION_MB, PREDICTION_ROWS
from zoo.scores.sample.samples import ALIKE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pd = lazy_module("pandas")
    pa = lazy_module("pyarrow")
    pq = lazy_module("pyarrow.parquet")

ANSWER_PREFIX, NETWORK_PREFIX = "p:", "n:"  # of columns: the answers' probabilities, and the network's own
SUM_TOLERANCE = 0.02  # by which stored probabilities may miss adding up to 1: half precision rounds each by 0.0005


def read_predictions(entry: Entry, benchmark: str) -> pd.DataFrame:
    """Read the per-image predictions of an entry on a benchmark, as they were answered (see `zoo.benchmarks.asking`).

    Args:
        entry: The entry; a Hub entry's file is fetched first.
        benchmark: Name of the benchmark.

    Returns:
        Columns file, cell, label and one probability column (float32) per label of the benchmark.

    Raises:
        EntryError: The predictions are missing or do not fit the benchmark's labels.

    Example:
        >>> entry = zoo.get_entry("cnn60")
        >>> table = zoo.read_predictions(entry, next(iter(entry.evaluation.benchmarks)))
        >>> list(table.columns[:3])
        ['file', 'cell', 'label']
    """
    described = _described(entry, benchmark)
    table, name = _read_columns(entry, benchmark, described.labels, ANSWER_PREFIX)
    unknown = set(table["label"]) - set(described.labels)
    if unknown:
        raise EntryError(f"{name} has labels the benchmark lacks: {', '.join(sorted(unknown))}.")
    return table


def read_network_predictions(entry: Entry, benchmark: str) -> pd.DataFrame:
    """Read the network's own probabilities on a benchmark, before any sample was asked for.

    Args:
        entry: The entry; a Hub entry's file is fetched first.
        benchmark: Name of the benchmark.

    Returns:
        Columns file, cell, label and one probability column (float32) per label of the entry.

    Raises:
        EntryError: They are not stored, or cannot be read.
    """
    described = _described(entry, benchmark)
    if not keeps_network(entry, benchmark):
        raise EntryError(f"{entry.id} keeps only its answers on {benchmark}, not its network's own probabilities.")
    if described.network_labels is None:
        return read_predictions(entry, benchmark)
    return _read_columns(entry, benchmark, described.network_labels, NETWORK_PREFIX)[0]


def read_evidence(entry: Entry) -> pd.DataFrame:
    """Read the answers that an entry's limits of acceptance were chosen by.

    Returns:
        Columns data (name of a data set), label, distance and one probability column "n:LABEL" per label of the entry,
        the network's own; of an ensemble with a deciding member also DECIDING + label, that member's.

    Raises:
        EntryError: They are not stored, or cannot be read.
    """
    path = entry.file(EVIDENCE)
    if not path.is_file():
        raise EntryError(f"{entry.id} keeps no answers to choose limits by; make them with --data ROOT.")
    name = f"{path.name} of {entry.id}"
    table = _read_table(path, name)
    prefixes = ("n:",) if entry.deciding_member is None else ("n:", DECIDING)
    needed = ["data", "label", "distance", *(prefix + label for prefix in prefixes for label in entry.labels)]
    missing = [one for one in needed if one not in table]
    if missing:
        raise EntryError(f"{name} has no column {', '.join(missing)}.")
    return table


def keeps_network(entry: Entry, benchmark: str) -> bool:
    """Whether the network's own probabilities on a benchmark are stored: beside the answers, or as the answers."""
    described = entry.evaluation.benchmarks.get(benchmark)
    if described is None:
        return False
    if described.network_labels is not None:
        return set(described.network_labels) == set(entry.labels)
    return set(described.labels) == set(entry.labels) and described.sample in ("", ALIKE)


def _described(entry: Entry, benchmark: str) -> Benchmark:
    described = entry.evaluation.benchmarks.get(benchmark)
    if described is None:
        raise EntryError(f"{entry.id} keeps no predictions for {benchmark}.")
    return described


def _read_columns(entry: Entry, benchmark: str, labels: Sequence[str], prefix: str) -> tuple[pd.DataFrame, str]:
    """Stored probabilities of some labels with what they are about, and the table's name for messages."""
    path = entry.file(predictions_file(benchmark))
    if not path.is_file():
        raise EntryError(f"{entry.id} keeps no predictions for {benchmark}.")
    name = f"{path.name} of {entry.id}"
    table = _read_table(path, name)
    columns = ["file", "cell", "label", *(f"{prefix}{label}" for label in labels)]
    missing = [column for column in columns if column not in table]
    if missing:
        raise EntryError(f"{name} has no column {', '.join(missing)}.")
    table = table[columns].rename(columns=lambda column: column.removeprefix(prefix))
    table = table.astype(dict.fromkeys(labels, np.float32))
    problem = _problem(table, labels)
    if problem:
        raise EntryError(f"{name} {problem}.")
    return table, name


def _read_table(path: Path, name: str) -> pd.DataFrame:
    """A parquet table of limited size; `name` is what error messages call it."""
    try:
        # the size is checked before anything is unpacked
        metadata = pq.read_metadata(path)
        size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
        if metadata.num_rows > PREDICTION_ROWS.value or size > PREDICTION_MB.bytes:
            raise EntryError(f"{name} has {metadata.num_rows:,} rows, more than are read.")
        return pq.read_table(path).to_pandas()
    except EntryError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise EntryError(f"{name} is not a readable parquet file.") from error


def _problem(table: pd.DataFrame, labels: Sequence[str]) -> str | None:
    """Problem of a prediction table, as the end of a sentence; None if there is none."""
    probabilities = table[list(labels)].to_numpy()
    if table.empty:
        return "has no rows"
    if table[["file", "cell", "label"]].isna().to_numpy().any() or not np.isfinite(probabilities).all():
        return "has values that are missing or not numbers"
    if table["file"].duplicated().any():
        return f"names a picture more than once: {table['file'][table['file'].duplicated()].iloc[0]}"
    if probabilities.min() < 0 or np.abs(probabilities.sum(1) - 1).max() > SUM_TOLERANCE:
        return "has values that are not probabilities: they do not add up to 1"
    return None


def as_stored(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The table with its probabilities rounded to half precision, as stored, so that figures recompute exactly."""
    return table.astype(dict.fromkeys(labels, np.float16)).astype(dict.fromkeys(labels, np.float32))
