"""How does a fitted network become an entry? Written to a temporary folder, judged there through the zoo, then renamed.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599) is divided into the last layer, so that plain timm gives the
same calibrated probabilities as the zoo.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from training.fit.state import Fitted
from training.prepare.dataset import TrainingDataError
from training.prepare.splits import Split
from training.publish.card import how_split, renew_card
from training.recipe import Recipe, pretrained_cfg
from zoo.benchmarks import scoring
from zoo.data import Item
from zoo.entry import HEAD, Entry, load_entry
from zoo.entry.write import (
    ScoredBenchmark,
    create_entry,
    update_benchmark,
    write_config,
    write_head,
    write_history,
    write_neighbours,
    write_weights,
)
from zoo.scores import metrics
from zoo.scores.bootstrap import UNKNOWN_CELL_PREFIX
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays, table_confusion
from zoo.scores.temperature import MIN_PROBABILITY, Scaling, fit_temperature
from zoo.serving.batch import classify_files
from zoo.serving.devices import device_name
from zoo.serving.heads import Classifier
from zoo.serving.runtime import Runtime

STAMPED = ("torch", "timm", "numpy", "pillow")


class Maker(Protocol):
    """What turns a fitted model into the files of an entry."""

    def write(self, place: Path) -> dict[str, Any]:
        """Write weights and the like; returns what config.json says of them, `zoo` included."""

    def calibrate(self, place: Path, temperature: float) -> dict[str, Any]:
        """Write again what the temperature changes; returns what it changes in the config's `zoo`."""


@dataclass(frozen=True)
class Network:
    """A fitted network and how it came about."""

    recipe: Recipe
    fitted: Fitted

    def write(self, place: Path) -> dict[str, Any]:
        """Weights in half precision, and the curves."""
        write_history(place, self.fitted.history)
        write_weights(place, half_precision(self.fitted.model.state_dict()))
        return network_config(self.recipe)

    def calibrate(self, place: Path, temperature: float) -> dict[str, Any]:
        """The temperature goes into the last layer, so that plain timm is calibrated too."""
        fold_temperature(self.fitted.model, temperature)
        write_weights(place, half_precision(self.fitted.model.state_dict()))
        return {"fitted_temperature": temperature}


@dataclass(frozen=True)
class Classical:
    """A fitted classical head on the network (and its weights) of another entry, or on raw pixels where it has none."""

    recipe: Recipe
    network: dict[str, Any]  # architecture and so on, as config.json has them
    tensors: Mapping[str, torch.Tensor]
    head: Classifier

    def write(self, place: Path) -> dict[str, Any]:
        """The head in a skops file, the network's weights beside it."""
        write_weights(place, half_precision(self.tensors))
        write_head(place, self.head)
        return {**self.network, "zoo": {"head": HEAD}}

    def calibrate(self, place: Path, temperature: float) -> dict[str, Any]:
        """There is no last layer to put the temperature in: the zoo divides by it."""
        return {"temperature": temperature}


def write_entry(
    out: Path,
    recipe: Recipe,
    made: Maker,
    items: Sequence[Item],
    split: Split,
    device: str,
    training: Mapping[str, Any],
) -> Entry:
    """Write the entry folder `out`, whole or not at all: weights, evaluation on validation and test, history, card.

    `training` is what the config tells of how it came about. The test split is scored here, once, by the entry itself
    as users will run it. Raises TrainingDataError if a test picture cannot be read any more.
    """
    labels = recipe.labels
    with create_entry(out) as place:
        found = made.write(place)
        if recipe.head and recipe.head.kind == "knn":
            trained = [items[row] for row in split.rows["train"]]
            write_neighbours(place, [i.file for i in trained], [str(i.label) for i in trained])
        content = config(recipe, labels, found, training, how_split(recipe, split))
        write_config(place, content)
        with Runtime(device, "fp32") as runtime:
            table = predict(runtime, load_entry(place), items, split, "val")
        logits = np.log(np.clip(table[labels].to_numpy(np.float64), MIN_PROBABILITY, 1))
        temperature = fit_temperature(label_arrays(table, labels)[0], logits)
        content["zoo"] |= made.calibrate(place, temperature)
        write_config(place, content)
        judged = {}
        with Runtime(device) as runtime:
            for side, role in (("val", "validation"), ("test", "test")):
                table = predict(runtime, load_entry(place), items, split, side)
                found = judge(
                    table, recipe, facts_of(split), role, device_name(runtime.device), scaling_of(load_entry(place))
                )
                judged[benchmark_name(recipe, role, split.leaky)] = ScoredBenchmark(found, table)
        for name, scored in judged.items():
            update_benchmark(place, name, scored)
        entry = load_entry(place)
        if not entry.usable:
            raise TrainingDataError(f"The entry that was made cannot be read back: {entry.reason}")
        renew_card(place)
    return load_entry(out)


def benchmark_name(recipe: Recipe, role: str, leaky: bool) -> str:
    """Figures of a leaky split never stand beside honest ones under one name."""
    return f"{recipe.data.name}-{role}{'-random' if leaky else ''}"


def config(
    recipe: Recipe, labels: list[str], network: Mapping[str, Any], training: Mapping[str, Any], split: str
) -> dict[str, Any]:
    """The entry's config.json: timm's hub layout of `network`, and ours under "zoo"; the card tells `split`."""
    ours = {
        "schema_version": 1,
        "title": recipe.title,
        "task": recipe.task,
        "summary": recipe.summary,
        "explanation_layer": None,
        "temperature": 1.0,
        "fitted_temperature": None,
        "crop": recipe.data.crop,
        **network.get("zoo", {}),
        "split": split,
        "training": dict(training),
        "recipe": recipe.model_dump(mode="json"),
    }
    return {
        "architecture": network["architecture"],
        "num_classes": len(labels),
        "label_names": labels,
        "label_descriptions": recipe.data.descriptions,
        "model_args": network["model_args"],
        "pretrained_cfg": network["pretrained_cfg"],
        "zoo": ours,
    }


def network_config(recipe: Recipe) -> dict[str, Any]:
    """Architecture, options and input of the recipe's network, as timm's hub layout has them."""
    # what only training needs (dropout rates) is no part of the published model
    args = {k: v for k, v in recipe.network.timm_args.items() if k not in ("drop_rate", "drop_path_rate")}
    return {
        "architecture": recipe.network.timm_name,
        "model_args": args,
        "pretrained_cfg": pretrained_cfg(recipe.network),
        "zoo": {"views": recipe.network.views, "explanation_layer": recipe.network.explanation_layer},
    }


def fold_temperature(model: nn.Module, temperature: float) -> None:
    """Divide the last linear layer by `temperature`, in place, so that its softmax is calibrated."""
    last = model.get_classifier()
    with torch.no_grad():
        last.weight.div_(temperature)
        last.bias.div_(temperature)


def predict(runtime: Runtime, entry: Entry, items: Sequence[Item], split: Split, side: str) -> pd.DataFrame:
    """Prediction table (file, cell, label, a column a label) of one side of the split, by the entry as users run it.

    Probabilities are rounded to half precision, as they are stored, so that every figure recomputes exactly.
    """
    rows = split.rows[side]
    files = ((items[i].file, items[i].source) for i in rows)
    results = list(tqdm(classify_files(runtime, entry, files), f"scoring {side}", total=len(rows), unit="image"))
    failed = [f"{result.file}: {result.error}" for result in results if result.prediction is None]
    if failed:
        raise TrainingDataError(f"{len(failed)} pictures could not be read again. {failed[0]}")
    found = pd.DataFrame([result.prediction.probabilities for result in results if result.prediction])
    found = found.astype(np.float16).astype(np.float32)
    found.insert(0, "file", [items[i].file for i in rows])
    found.insert(1, "cell", [split.cells[i] for i in rows])
    found.insert(2, "label", [items[i].label for i in rows])
    return found


def facts_of(split: Split) -> dict[str, Any]:
    """What a benchmark's record tells of the split."""
    return {"split_hash": split.hash, "leaky": split.leaky, "leak_share": split.leak_share}


def judge(
    table: pd.DataFrame, recipe: Recipe, facts: Mapping[str, Any], role: str, device: str, scaling: Scaling
) -> dict[str, Any]:
    """The record of one side of a recipe's split; `facts` are those of the split (see `facts_of`)."""
    share = 100 * facts["leak_share"]
    leaky = f" (LEAKY: {share:.0f} % of test images have a copy in training)" if facts["leaky"] else ""
    told = {"title": f"{recipe.data.name}, {role} split{leaky}", "role": role, "data": recipe.data.credit}
    return record(table, scaling, {**told, **facts, "seed": recipe.seed, "device": device})


def record(table: pd.DataFrame, scaling: Scaling, told: Mapping[str, Any]) -> dict[str, Any]:
    """One benchmark's record: confusion counts, scores with intervals, what is `told` of it, and what was run where."""
    labels = list(table.columns[3:])
    unknown = table["cell"].str.startswith(UNKNOWN_CELL_PREFIX)
    notes = [*told.get("notes", [])]
    if unknown.any():
        notes.append(f"{unknown.sum()} images have no known source cell; they count as cells of their own.")
    return {
        **told,
        "labels": labels,
        "confusion": table_confusion(table, labels).tolist(),
        "metrics": metrics.as_dict(scoring.intervals(scoring.score(table, labels, scaling))),
        "n_images": len(table),
        "n_cells": int(table["cell"][~unknown].nunique()),
        "notes": notes,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in STAMPED}},
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
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def half_precision(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round a network's tensors to half precision; batch-norm counters stay whole numbers."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
