"""Records of benchmarks for `evaluation.json`: scores with intervals, and where they come from."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from training.prepare.splits import Split
from training.recipe import Recipe
from zoo.benchmarks import scoring
from zoo.scores import metrics
from zoo.scores.bootstrap import UNKNOWN_CELL_PREFIX
from zoo.scores.one_hot import one_hot_scores
from zoo.scores.predictions import table_confusion
from zoo.scores.temperature import Scaling

RECORDED_VERSIONS = ("torch", "timm", "numpy", "pillow")
GIT_TIMEOUT = 10  # seconds


def benchmark_name(recipe: Recipe, role: str, leaky: bool) -> str:
    """Name of a recipe's own test or validation set; another one if the split leaks, so that they are never mixed."""
    return f"{recipe.data.name}-{role}{'-random' if leaky else ''}"


def split_facts(split: Split) -> dict[str, Any]:
    """Facts about the split for a benchmark's record."""
    return {"split_hash": split.hash, "leaky": split.leaky, "leak_share": split.leak_share}


def split_record(
    table: pd.DataFrame, recipe: Recipe, facts: Mapping[str, Any], role: str, device: str, scaling: Scaling
) -> dict[str, Any]:
    """The record of a recipe's own test or validation set.

    Args:
        table: Predictions of its pictures.
        recipe: The recipe.
        facts: What is known of the split (see `split_facts`).
        role: test or validation.
        device: What the predictions were computed on.
        scaling: How temperature scaling is applied to the stored probabilities.
    """
    share = 100 * facts["leak_share"]
    leaky = f" (LEAKY: {share:.0f} % of test images have a copy in training)" if facts["leaky"] else ""
    title = f"{recipe.data.name}, {role} split{leaky}"
    described = {"title": title, "role": role, "data": recipe.data.credit, **facts}
    record = benchmark_record(table, scaling, {**described, "seed": recipe.seed, "device": device})
    if recipe.head and recipe.head.one_hot:
        found = one_hot_scores(table, record["labels"], scaling)
        record["one_hot"] = metrics.as_dict({name: score.interval for name, score in found.items()})
    return record


def benchmark_record(table: pd.DataFrame, scaling: Scaling, described: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one benchmark: confusion counts, scores with intervals, versions and commit.

    Args:
        table: Predictions: columns file, cell, label, and one column per label.
        scaling: How temperature scaling is applied to the stored probabilities.
        described: Title, role, notes and other fields of the record.
    """
    labels = list(table.columns[3:])
    unknown = table["cell"].str.startswith(UNKNOWN_CELL_PREFIX)
    notes = [*described.get("notes", [])]
    if unknown.any():
        notes.append(f"{unknown.sum()} images have no known source cell; each counts as a cell of its own.")
    return {
        **described,
        "labels": labels,
        "confusion": table_confusion(table, labels).tolist(),
        "metrics": metrics.as_dict(scoring.intervals(scoring.score(table, labels, scaling))),
        "n_images": len(table),
        "n_cells": int(table["cell"][~unknown].nunique()),
        "notes": notes,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in RECORDED_VERSIONS}},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The project's commit, with "+" if the tree has changes; None outside a checkout."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
