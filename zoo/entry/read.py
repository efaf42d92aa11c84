"""Read an entry's folder. Nothing in it is ever unpickled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

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
from zoo.entry.model import Entry
from zoo.entry.schema import Config, Evaluation
from zoo.entry.weights import Weights, read_header, with_head
from zoo.scores import label_mapping

ELSEWHERE = "Its weights are published elsewhere."


def read_entry(folder: Path, name: str | None = None, links: bool = False) -> Entry:
    """Read an entry's folder, called `name` or as it is. Never raises on bad content: it comes back with the reason.

    Files that are `links` out of the folder are refused, unless it is one that we put together ourselves.
    """
    empty, name = Evaluation(), name or folder.name
    try:
        if not links:
            _check_links(folder)
        if not ID.match(name):
            raise EntryError("The folder's name may only have letters, digits, dots, dashes and underscores.")
        config = parse(folder / CONFIG, Config)
        evaluation = parse(folder / EVALUATION, Evaluation) if (folder / EVALUATION).exists() else empty
        weights = read_header(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
        if weights and config.zoo.head:
            weights = with_head(weights, folder / HEAD)
    except EntryError as error:
        return Entry(name, folder, None, empty, None, str(error))
    if config.zoo.members:
        reason = f"It is an ensemble of {', '.join(config.zoo.members)}, which have to be in the zoo with it."
    else:
        reason = None if weights else f"{ELSEWHERE} Its figures can be compared, but it cannot classify here."
    return Entry(name, folder, config, evaluation, weights, reason)


def _check_links(folder: Path) -> None:
    """A folder that came from somebody else must not show, or send on, what lies elsewhere on this computer."""
    home = folder.resolve()
    for place in (folder, folder / PREDICTIONS):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(home)):
                raise EntryError(f"{path.name} is a link that leads out of the entry's folder. Copy the file instead.")


def with_members(entry: Entry, others: Mapping[str, Entry]) -> Entry:
    """An ensemble with its members found among `others` by id; any other entry as it is.

    Where a member is missing, is unusable, is an ensemble itself or cannot name the labels, the entry stays unusable,
    with the reason.
    """
    if entry.config is None or not entry.config.zoo.members:
        return entry
    found = []
    for name in entry.config.zoo.members:
        # beside it in its own namespace, where it is from the Hub
        member = others.get(f"{entry.id.split('--')[0]}--{name}") if entry.origin else others.get(name)
        if member is None:
            return replace(entry, reason=f"Its member {name} is not in the zoo.")
        if not member.usable or member.config is None or member.config.zoo.members:
            return replace(entry, reason=f"Its member {name} cannot be used here. {member.reason or ''}".strip())
        same = entry.config.zoo.merged_labels
        known = member.labels if same is None else label_mapping.map_labels(member.labels, entry.labels, same).values()
        if set(known) != set(entry.labels):
            return replace(entry, reason=f"Its member {name} names other classes.")
        found.append(member)
    sizes = [member.weights for member in found if member.weights]
    counts = [size.parameters for size in sizes]
    total = None if None in counts else sum(count for count in counts if count)
    weights = Weights(total, sum(size.bytes for size in sizes))
    return replace(entry, members=tuple(found), weights=weights, reason=None)


def read_history(entry: Entry) -> pd.DataFrame:
    """Per-epoch curves, one row an epoch; empty where there are none or they cannot be read."""
    try:
        return pd.DataFrame(read_json(entry.file(HISTORY)))
    except (EntryError, ValueError):
        return pd.DataFrame()


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


def summary(entry: Entry) -> Mapping[str, Any]:
    """What `python -m zoo list --json` prints of an entry."""
    config = entry.config
    return {
        "id": entry.id,
        "title": entry.title,
        "task": config.zoo.task if config else "",
        "labels": entry.labels,
        "architecture": config.architecture if config else "",
        "parameters": entry.weights.parameters if entry.weights else None,
        "weights": entry.weights is not None,
        "members": list(config.zoo.members or []) if config else [],
        "status": "ok" if entry.ok else "broken",
        "reason": entry.reason,
        "benchmarks": {
            name: {metric: value.model_dump() for metric, value in benchmark.metrics.items()}
            for name, benchmark in entry.evaluation.benchmarks.items()
        },
        "speed": (entry.evaluation.model_extra or {}).get("speed"),
    }
