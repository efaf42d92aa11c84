"""How does a fitted network become an entry? Written to a temporary folder, judged there through the zoo, then renamed.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599) is divided into the last layer, so that plain timm gives the
same calibrated probabilities as the zoo.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from training.card import render_card
from training.data import TrainingDataError
from training.engine import Fitted, pretrained_cfg
from training.recipe import Recipe
from training.splits import Split
from zoo import metrics
from zoo.batch import classify_files
from zoo.data import Item
from zoo.entry import CARD, CONFIG, EVALUATION, HISTORY, PREDICTIONS, WEIGHTS, Entry, read_entry, write_predictions
from zoo.files import atomic_folder, atomic_path, write_json, write_text
from zoo.runtime import Runtime, device_name

STAMPED = ("torch", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class Judged:
    """A benchmark's record for evaluation.json and its per-image predictions."""

    record: dict[str, Any]
    table: pd.DataFrame


def write_entry(out: Path, recipe: Recipe, fitted: Fitted, items: Sequence[Item], split: Split, device: str) -> Entry:
    """Write the entry folder `out`, whole or not at all: weights, evaluation on validation and test, history, card.

    The test split is scored here, once, by the entry itself as users will run it. Raises TrainingDataError if a test
    picture cannot be read any more.
    """
    labels = list(dict.fromkeys(recipe.data.labels.values()))
    with atomic_folder(out) as folder:
        # the entry's id is its folder's name: judge it under the name it will have
        place = folder / out.name
        place.mkdir()
        write_json(place / HISTORY, fitted.history)
        _write_weights(place, fitted.model)
        write_json(place / CONFIG, config(recipe, labels, None))
        with Runtime(device, "fp32") as runtime:
            found = predict(runtime, read_entry(place), items, split, "val")
        logits = np.log(np.clip(found[labels].to_numpy(np.float64), metrics.TINY, 1))
        temperature = metrics.fit_temperature(metrics.arrays(found, labels)[0], logits)
        fold_temperature(fitted.model, temperature)
        _write_weights(place, fitted.model)
        write_json(place / CONFIG, config(recipe, labels, temperature))
        judged = {}
        with Runtime(device) as runtime:
            # figures of a leaky split never stand beside honest ones under one name
            mark = "-random" if split.leaky else ""
            for side, role in (("val", "validation"), ("test", "test")):
                table = predict(runtime, read_entry(place), items, split, side)
                record = judge(table, recipe, split, role, device_name(runtime.device))
                judged[f"{recipe.data.name}-{role}{mark}"] = Judged(record, table)
        for name, item in judged.items():
            write_predictions(place / PREDICTIONS / f"{name}.parquet", item.table, labels)
        evaluation = {"schema_version": 1, "benchmarks": {name: item.record for name, item in judged.items()}}
        write_json(place / EVALUATION, evaluation)
        entry = read_entry(place)
        if not entry.usable:
            raise TrainingDataError(f"The entry that was made cannot be read back: {entry.reason}")
        write_text(place / CARD, render_card(entry, recipe, split, fitted.best_epoch))
        for item in place.iterdir():
            item.rename(folder / item.name)
        place.rmdir()
    return read_entry(out)


def config(recipe: Recipe, labels: list[str], temperature: float | None) -> dict[str, Any]:
    """The entry's config.json: timm's hub layout, and ours under "zoo"."""
    # what only training needs (dropout rates) is no part of the published model
    args = {key: value for key, value in recipe.model.args.items() if key not in ("drop_rate", "drop_path_rate")}
    ours = {
        "schema_version": 1,
        "title": recipe.title,
        "task": recipe.task,
        "summary": recipe.summary,
        "explanation_layer": None,
        "temperature": 1.0,
        "fitted_temperature": temperature,
        "gate_threshold": None,
        "recipe": recipe.model_dump(mode="json"),
    }
    return {
        "architecture": recipe.model.architecture,
        "num_classes": len(labels),
        "label_names": labels,
        "label_descriptions": recipe.data.descriptions,
        "model_args": args,
        "pretrained_cfg": pretrained_cfg(recipe.model),
        "zoo": ours,
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


def judge(table: pd.DataFrame, recipe: Recipe, split: Split, role: str, device: str) -> dict[str, Any]:
    """One benchmark's record: confusion counts, scores with intervals, and what was run where."""
    labels = list(table.columns[3:])
    truth, probabilities = metrics.arrays(table, labels)
    cells = table["cell"][~table["cell"].str.startswith("unknown-")].nunique()
    unknown = int(table["cell"].str.startswith("unknown-").sum())
    leaky = f" (LEAKY: {100 * split.leak_share:.0f} % of test images have a copy in training)" if split.leaky else ""
    notes = [f"{unknown} images have no known source cell; they count as cells of their own."] if unknown else []
    return {
        "title": f"{recipe.data.name}, {role} split{leaky}",
        "role": role,
        "data": recipe.data.credit,
        "labels": labels,
        "confusion": metrics.confusion(truth, probabilities.argmax(1), len(labels)).tolist(),
        "metrics": metrics.as_dict(metrics.evaluate(table, labels)),
        "n_images": len(table),
        "n_cells": int(cells),
        "split_hash": split.hash,
        "leaky": split.leaky,
        "leak_share": split.leak_share,
        "notes": notes,
        "seed": recipe.seed,
        "device": device,
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


def _write_weights(folder: Path, model: nn.Module) -> None:
    """The network's tensors in half precision; batch-norm counters stay whole numbers."""
    half = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(half, str(temporary), {"format": "pt"})
