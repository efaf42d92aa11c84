"""Write an entry's files: the only module of the project that does.

Each file is written under a temporary name and then renamed, so that a reader finds it whole or not at all.
`create_entry` does the same for a whole folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from zoo.entry.files import (
    CARD,
    CONFIG,
    EVALUATION,
    EVIDENCE,
    HEAD,
    HISTORY,
    NEIGHBOURS,
    OOD_STATISTICS,
    WEIGHTS,
    EntryError,
    first_error,
    predictions_file,
    read_json,
)
from zoo.entry.predictions import NETWORK_PREFIX
from zoo.entry.schema import Evaluation
from zoo.files import atomic_folder, atomic_path, write_json, write_text
from zoo.lazy import lazy_module
from zoo.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from safetensors import numpy as numpy_safetensors
    from safetensors import torch as safetensors
else:
    pd = lazy_module("pandas")
    pa = lazy_module("pyarrow")
    pq = lazy_module("pyarrow.parquet")
    torch = lazy_module("torch")
    safetensors = lazy_module("safetensors.torch")
    numpy_safetensors = lazy_module("safetensors.numpy")

SCHEMA_VERSION = 1  # of evaluation.json
Section = Literal["gate", "elsewhere", "speed", "fields", "counts", "acceptance"]


@dataclass(frozen=True)
class ScoredBenchmark:
    """A benchmark's record for `evaluation.json`, and the prediction table that its figures follow from.

    Attributes:
        record: The record.
        table: Answers: columns file, cell, label, and one column of probabilities a label of the record.
        network: The network's own probabilities of the same pictures, one column a label of the entry; None where they
            are those of `table`.
    """

    record: dict[str, Any]
    table: pd.DataFrame
    network: pd.DataFrame | None = None


@contextmanager
def create_entry(out: Path) -> Iterator[Path]:
    """Write a new entry, whole or not at all.

    Yields:
        A temporary folder of the same name as `out`, since an entry's id is the name of its folder. Its files replace
        `out` if the block succeeds and are removed if it raises.
    """
    with atomic_folder(out) as folder:
        place = folder / out.name
        place.mkdir()
        yield place
        for item in place.iterdir():
            item.rename(folder / item.name)
        place.rmdir()


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `config.json` of a new entry, stamped with the version of HemaZoo that writes it."""
    ours = {**content["zoo"], "hemazoo_version": __version__}
    write_json(folder / CONFIG, {**content, "zoo": ours})


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a network's tensors, in the precision they have."""
    with atomic_path(folder / WEIGHTS) as temporary:
        safetensors.save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"}
        )


def write_head(folder: Path, classifier: Any) -> None:
    """Write a fitted scikit-learn classifier that stands in for the last layer, compressed, without pickle."""
    # skops takes a third of the start-up time, and most commands never need it
    import skops.io  # noqa: PLC0415

    with atomic_path(folder / HEAD) as temporary:
        skops.io.dump(classifier, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=9)


def write_neighbours(folder: Path, files: Sequence[str], labels: Sequence[str]) -> None:
    """Write which training picture each row of a k-nearest-neighbours classifier is."""
    with atomic_path(folder / NEIGHBOURS) as temporary:
        pd.DataFrame({"file": files, "label": labels}).to_parquet(temporary, index=False, compression="zstd")


def write_ood_statistics(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the statistics that out-of-distribution distances are computed from."""
    with atomic_path(folder / OOD_STATISTICS) as temporary:
        numpy_safetensors.save_file(
            {name: np.asarray(values, order="C") for name, values in tensors.items()}, temporary
        )


def write_history(folder: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write the training curves, one record per epoch."""
    write_json(folder / HISTORY, list(epochs))


def write_card(folder: Path, text: str) -> None:
    """Write the model card, Markdown with a YAML metadata block."""
    write_text(folder / CARD, text)


def write_predictions(
    folder: Path,
    benchmark: str,
    table: pd.DataFrame,
    labels: Sequence[str],
    network: pd.DataFrame | None = None,
) -> None:
    """Write the per-image predictions on a benchmark, zstd-compressed, probabilities in half precision.

    Args:
        folder: The entry's folder.
        benchmark: Name of the benchmark.
        table: Columns file, cell, label, and one probability column per label.
        labels: The labels whose columns are written.
        network: The network's own probabilities of the same pictures, one column a label of the entry; None where they
            are those of `table`.
    """
    stored = table[["file", "cell", "label", *labels]].astype(dict.fromkeys(labels, np.float16))
    stored = stored.rename(columns={label: f"p:{label}" for label in labels})
    if network is not None:
        stored = pd.concat([stored, network.astype(np.float16).add_prefix(NETWORK_PREFIX)], axis=1)
    content = pa.Table.from_pandas(stored, preserve_index=False)
    with atomic_path(folder / predictions_file(benchmark)) as temporary:
        pq.write_table(content, temporary, compression="zstd", compression_level=19)


def write_evidence(folder: Path, table: pd.DataFrame) -> None:
    """Write the answers that limits of acceptance are chosen by, zstd-compressed; see `read_evidence`."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(folder / EVIDENCE) as temporary:
        pq.write_table(content, temporary, compression="zstd", compression_level=19)


def write_found(folder: Path, benchmark: str, table: pd.DataFrame) -> None:
    """Write the marked and found cells of an evaluation set of fields, zstd-compressed."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(folder / predictions_file(benchmark)) as temporary:
        pq.write_table(content, temporary, compression="zstd", compression_level=19)


def write_evaluation(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `evaluation.json`, with the field names of the file.

    Raises:
        EntryError: The content does not match the schema, so that the entry could not be read any more.
    """
    _check_evaluation(content)
    write_json(folder / EVALUATION, content)


def update_benchmark(folder: Path, name: str, scored: ScoredBenchmark) -> None:
    """Add a benchmark to an entry, or replace it.

    The predictions are written before the record, so that no record ever stands without them.
    """
    content = _evaluation(folder)
    content.setdefault("benchmarks", {})[name] = scored.record
    _check_evaluation(content)
    write_predictions(folder, name, scored.table, scored.record["labels"], scored.network)
    write_evaluation(folder, content)


def update_section(folder: Path, name: Section, value: Mapping[str, Any]) -> None:
    """Replace one section of `evaluation.json`."""
    write_evaluation(folder, {**_evaluation(folder), name: value})


def update_explanations(folder: Path, method: str, scores: Mapping[str, Any]) -> None:
    """Replace the scores of one attribution method's maps in `evaluation.json`."""
    content = _evaluation(folder)
    content.setdefault("explanations", {})[method] = scores
    write_evaluation(folder, content)


def update_metrics(
    folder: Path, metrics: Mapping[str, Mapping[str, Any]], one_hot: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Replace the metrics of benchmarks that the entry has, by benchmark name; `one_hot`: those of one-hot answers."""
    content = _evaluation(folder)
    for name, values in metrics.items():
        content["benchmarks"][name]["metrics"] = values
    for name, values in (one_hot or {}).items():
        content["benchmarks"][name]["one_hot"] = values
    write_evaluation(folder, content)


def _check_evaluation(content: Mapping[str, Any]) -> None:
    """Raise EntryError if the content does not match the schema."""
    try:
        Evaluation.model_validate(content)
    except ValidationError as error:
        raise EntryError(f"{EVALUATION} would be invalid: {first_error(error)}.") from error


def _evaluation(folder: Path) -> dict[str, Any]:
    """Content of `evaluation.json` as it is in the file, so that fields unknown to this version are kept."""
    path = folder / EVALUATION
    return read_json(path) if path.exists() else {"schema_version": SCHEMA_VERSION, "benchmarks": {}}
