"""Read an entry's folder. Nothing in it is ever unpickled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.entry.files import (
    CARD,
    CONFIG,
    EVALUATION,
    HEAD,
    HISTORY,
    ID,
    MAX_CARD_BYTES,
    PREDICTIONS,
    WEIGHTS,
    EntryError,
    parse,
    read_json,
)
from zoo.entry.model import AnyEntry, BrokenEntry, Entry
from zoo.entry.schema import Config, Evaluation
from zoo.entry.weights import Weights, read_header, with_head
from zoo.lazy import lazy_module
from zoo.scores import label_mapping

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MAX_EPOCHS, MAX_CURVES, MAX_VALUE = 100_000, 100, 1e12  # of a history
NO_WEIGHTS = "Its weights are published elsewhere. Its figures can be compared, but it cannot classify here."


def read_entry(folder: Path, name: str | None = None, links: bool = False) -> AnyEntry:
    """Read an entry's folder; bad content gives a broken entry with the reason.

    Args:
        folder: The entry's folder.
        name: Id of the entry; by default the folder's name.
        links: Whether files may be links to places outside of the folder. Only for folders that the zoo itself put
            together, such as the Hub's cache.
    """
    name = name or folder.name
    try:
        return load_entry(folder, name, links)
    except EntryError as error:
        return BrokenEntry(name, folder, str(error))


def load_entry(folder: Path, name: str | None = None, links: bool = False) -> Entry:
    """Read an entry's folder that has to be readable. The arguments are those of `read_entry`.

    Raises:
        EntryError: A file is missing or invalid; the message is the reason.
    """
    name = name or folder.name
    if not links:
        _check_links(folder)
    if not ID.match(name):
        raise EntryError("The folder's name may only have letters, digits, dots, dashes and underscores.")
    config = parse(folder / CONFIG, Config)
    evaluation = parse(folder / EVALUATION, Evaluation) if (folder / EVALUATION).exists() else Evaluation()
    weights = read_header(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
    if weights and config.zoo.head:
        weights = with_head(weights, folder / HEAD)
    reason = None if weights else NO_WEIGHTS
    if config.zoo.members:
        reason = f"It is an ensemble of {', '.join(config.zoo.members)}, which have to be in the zoo with it."
    return Entry(name, folder, config, evaluation, weights, reason)


def _check_links(folder: Path) -> None:
    """Refuse links that lead out of the folder, so that a foreign entry cannot show or publish other local files."""
    home = folder.resolve()
    for place in (folder, folder / PREDICTIONS):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(home)):
                raise EntryError(f"{path.name} is a link that leads out of the entry's folder. Copy the file instead.")


def with_members(entry: Entry, others: Mapping[str, AnyEntry]) -> Entry:
    """Attach the members of an ensemble.

    Args:
        entry: Any entry; one that is not an ensemble comes back as it is.
        others: All entries by id.

    Returns:
        The ensemble with its members. Where a member is missing, is unusable, is an ensemble itself or has other
        labels, the ensemble stays unusable, with the reason.
    """
    members = []
    for name in entry.config.zoo.members or ():
        # a Hub entry's members are in the same namespace
        member = others.get(f"{entry.id.split('--')[0]}--{name}") if entry.origin else others.get(name)
        if member is None:
            return replace(entry, reason=f"Its member {name} is not in the zoo.")
        if isinstance(member, BrokenEntry) or not member.usable or member.config.zoo.members:
            return replace(entry, reason=f"Its member {name} cannot be used here. {member.reason or ''}".strip())
        if not _labels_fit(entry, member):
            return replace(entry, reason=f"Its member {name} names other classes.")
        members.append(member)
    if not members:
        return entry
    sizes = [member.weights for member in members if member.weights]
    counts = [size.parameters for size in sizes if size.parameters is not None]
    parameters = sum(counts) if len(counts) == len(sizes) else None
    weights = Weights(parameters, sum(size.bytes for size in sizes))
    return replace(entry, members=tuple(members), weights=weights, reason=None)


def _labels_fit(entry: Entry, member: Entry) -> bool:
    """Whether a member's labels, merged as the ensemble says, are the ensemble's labels."""
    merged = entry.config.zoo.merged_labels
    if merged is None:
        return set(member.labels) == set(entry.labels)
    return set(label_mapping.map_labels(member.labels, entry.labels, merged).values()) == set(entry.labels)


def read_history(entry: Entry) -> pd.DataFrame:
    """Per-epoch curves, one row an epoch; empty where there are none or they cannot be read."""
    try:
        epochs = read_json(entry.file(HISTORY))
        return pd.DataFrame(epochs) if _is_history(epochs) else pd.DataFrame()
    except (EntryError, ValueError):
        return pd.DataFrame()


def _is_history(epochs: Any) -> bool:
    """Whether parsed JSON is a list of records of a few numbers each: a table of many columns takes any memory."""
    if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
        return False
    columns = {name for epoch in epochs for name in epoch}
    values = (value for epoch in epochs for value in epoch.values())
    numbers = all(value is None or (isinstance(value, int | float) and abs(value) < MAX_VALUE) for value in values)
    return len(epochs) <= MAX_EPOCHS and len(columns) <= MAX_CURVES and numbers


def read_card(entry: Entry) -> str:
    """The model card's Markdown without its metadata block; empty where there is none."""
    try:
        path = entry.file(CARD)
        if path.stat().st_size > MAX_CARD_BYTES:
            return ""
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, EntryError):
        return ""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def summary(entry: AnyEntry) -> Mapping[str, Any]:
    """Record of an entry for `python -m zoo list --json`; a broken one has the same fields, empty."""
    if isinstance(entry, BrokenEntry):
        return _summary_of_broken(entry)
    config = entry.config
    return {
        "id": entry.id,
        "title": entry.title,
        "task": config.zoo.task,
        "labels": entry.labels,
        "architecture": config.architecture,
        "parameters": entry.weights.parameters if entry.weights else None,
        "weights": entry.weights is not None,
        "members": list(config.zoo.members or []),
        "status": "ok",
        "reason": entry.reason,
        "benchmarks": {
            name: {metric: value.model_dump() for metric, value in benchmark.metrics.items()}
            for name, benchmark in entry.evaluation.benchmarks.items()
        },
        "speed": (entry.evaluation.model_extra or {}).get("speed"),
    }


def _summary_of_broken(entry: BrokenEntry) -> Mapping[str, Any]:
    return {
        "id": entry.id,
        "title": entry.id,
        "task": "",
        "labels": [],
        "architecture": "",
        "parameters": None,
        "weights": False,
        "members": [],
        "status": "broken",
        "reason": entry.reason,
        "benchmarks": {},
        "speed": None,
    }
