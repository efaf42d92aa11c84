"""Write a fitted model as an entry: weights, calibration, scores on validation and test, card.

The temperature (Guo et al. 2017, arXiv:1706.04599) is divided into the last layer, so that plain timm gives the same
calibrated probabilities as the zoo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from training.fit.networks.plain import plain_network
from training.fit.state import Fitted
from training.prepare.cleaning import trained_shares
from training.prepare.dataset import TrainingDataError
from training.prepare.splits import Split
from training.publish.card import how_split, renew_card
from training.publish.records import benchmark_name, split_facts, split_record
from training.recipe import Recipe, pretrained_cfg
from zoo.data import Item
from zoo.entry import HEAD, Entry, as_stored, load_entry
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
from zoo.progress import progress_bar
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays
from zoo.scores.temperature import MIN_PROBABILITY, fit_temperature
from zoo.serving.batch import classify_files
from zoo.serving.devices import device_name
from zoo.serving.heads import Classifier
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import crop_detector_hash

TRAINING_ARGUMENTS = ("drop_rate", "drop_path_rate")  # of a network; without effect in the published model
SIDES = {"val": "validation", "test": "test"}  # side of the split → role of the benchmark


class FittedModel(Protocol):
    """A fitted model that can write its files into an entry's folder."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the weights; returns what `config.json` says of the network, with our part under "zoo"."""

    def calibrate(self, folder: Path, temperature: float) -> dict[str, Any]:
        """Apply a temperature, and write the weights again if they change; returns changes of the config's "zoo"."""


@dataclass(frozen=True)
class FittedNetwork:
    """A fitted network with its training curves."""

    recipe: Recipe
    fitted: Fitted

    @cached_property
    def _plain(self) -> tuple[nn.Module, dict[str, Any]] | None:
        return plain_network(self.recipe.network, self.fitted.model)

    @property
    def network(self) -> nn.Module:
        """The network as it is written: timm's own where that gives the same answers."""
        return self.fitted.model if self._plain is None else self._plain[0]

    def write(self, folder: Path) -> dict[str, Any]:
        """Write weights in half precision, and the training curves."""
        write_history(folder, self.fitted.history)
        write_weights(folder, half_precision(self.network.state_dict()))
        config = network_config(self.recipe)
        if self._plain is None:
            return config
        arguments = {name: value for name, value in self._plain[1].items() if name not in TRAINING_ARGUMENTS}
        layer = self.recipe.network.explanation_layer
        ours = {**config["zoo"], "explanation_layer": layer and layer.removeprefix("backbone.")}
        return {**config, "architecture": self.recipe.network.architecture, "model_args": arguments, "zoo": ours}

    def calibrate(self, folder: Path, temperature: float) -> dict[str, Any]:
        """Divide the last layer by the temperature, so that plain timm is calibrated too."""
        model: Any = self.network
        last = model.get_classifier()
        with torch.no_grad():
            last.weight.div_(temperature)
            last.bias.div_(temperature)
        write_weights(folder, half_precision(model.state_dict()))
        return {"fitted_temperature": temperature}


@dataclass(frozen=True)
class FittedHead:
    """A classical classifier on the features of another entry's network, or on raw pixels.

    Attributes:
        recipe: The recipe.
        network: Architecture, arguments and input of the network, as `config.json` has them.
        tensors: Weights of the network.
        head: The fitted classifier.
    """

    recipe: Recipe
    network: dict[str, Any]
    tensors: Mapping[str, torch.Tensor]
    head: Classifier

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the classifier, and the network's weights beside it."""
        write_weights(folder, half_precision(self.tensors))
        write_head(folder, self.head)
        return {**self.network, "zoo": {"head": HEAD}}

    def calibrate(self, folder: Path, temperature: float) -> dict[str, Any]:
        """Leave the temperature to the zoo: there is no last layer to divide."""
        return {"temperature": temperature}


def write_entry(
    out: Path,
    recipe: Recipe,
    model: FittedModel,
    items: Sequence[Item],
    split: Split,
    device: str,
    training: Mapping[str, Any],
) -> Entry:
    """Write a new entry, whole or not at all.

    The test split is scored here, once, by the entry as users will run it.

    Args:
        out: Folder of the entry.
        recipe: The recipe that the model was trained with.
        model: The fitted model.
        items: All pictures of the data set.
        split: Which of them were trained, validated and tested on.
        device: Where the entry is scored.
        training: What the config says of the training: seconds, epochs, device.

    Returns:
        The new entry.

    Raises:
        TrainingDataError: A picture cannot be read any more, or the entry cannot be used.
    """
    with create_entry(out) as folder:
        network = model.write(folder)
        if recipe.head and recipe.head.kind == "knn":
            trained = [items[row] for row in split.rows["train"]]
            write_neighbours(folder, [item.file for item in trained], [str(item.label) for item in trained])
        content = entry_config(recipe, recipe.labels, network, training, how_split(recipe, split))
        labels = [str(item.label) for item in items]
        content["zoo"]["prior_trained"] = trained_shares(recipe.balance, split, labels, recipe.labels)
        write_config(folder, content)
        temperature = _fit_temperature(folder, recipe, items, split, device)
        content["zoo"] |= model.calibrate(folder, temperature)
        write_config(folder, content)
        for name, scored in _score(folder, recipe, items, split, device).items():
            update_benchmark(folder, name, scored)
        entry = load_entry(folder)
        if not entry.usable:
            raise TrainingDataError(f"The new entry cannot be read back: {entry.reason}")
        renew_card(folder)
    return load_entry(out)


def _fit_temperature(folder: Path, recipe: Recipe, items: Sequence[Item], split: Split, device: str) -> float:
    """Temperature that fits the entry's answers on the validation split, computed in full precision."""
    with Runtime(device, "fp32") as runtime:
        table = predict(runtime, load_entry(folder), items, split, "val")
    truth, _ = label_arrays(table, recipe.labels)
    logits = np.log(np.clip(table[recipe.labels].to_numpy(np.float64), MIN_PROBABILITY, 1))
    return fit_temperature(truth, logits)


def _score(
    folder: Path, recipe: Recipe, items: Sequence[Item], split: Split, device: str
) -> dict[str, ScoredBenchmark]:
    """Score the entry on validation and test, by benchmark name. Both are predicted before either is written."""
    scored = {}
    with Runtime(device) as runtime:
        for side, role in SIDES.items():
            entry = load_entry(folder)
            table = predict(runtime, entry, items, split, side)
            where = device_name(runtime.device_name)
            record = split_record(table, recipe, split_facts(split), role, where, scaling_of(entry))
            scored[benchmark_name(recipe, role, split.leaky)] = ScoredBenchmark(record, table)
    return scored


def entry_config(
    recipe: Recipe, labels: list[str], network: Mapping[str, Any], training: Mapping[str, Any], split: str
) -> dict[str, Any]:
    """Content of an entry's `config.json`.

    Args:
        recipe: The recipe, which is stored too.
        labels: Labels in the order of the outputs.
        network: Architecture, arguments and input in timm's hub layout, and changes of our part under "zoo".
        training: Facts of the training.
        split: What was trained, validated and tested on, for the card.
    """
    ours = {
        "schema_version": 1,
        "title": recipe.title,
        "task": recipe.task,
        "summary": recipe.summary,
        "explanation_layer": None,
        "temperature": 1.0,
        "fitted_temperature": None,
        "crop": recipe.data.crop,
        "cut_by": crop_detector_hash(recipe.data.crop),
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
    """Architecture, arguments and input of the recipe's network, in timm's hub layout."""
    arguments = recipe.network.timm_args.items()
    return {
        "architecture": recipe.network.timm_name,
        "model_args": {name: value for name, value in arguments if name not in TRAINING_ARGUMENTS},
        "pretrained_cfg": pretrained_cfg(recipe.network),
        "zoo": {"views": recipe.network.views, "explanation_layer": recipe.network.explanation_layer},
    }


def predict(runtime: Runtime, entry: Entry, items: Sequence[Item], split: Split, side: str) -> pd.DataFrame:
    """Classify one side of the split by the entry as users run it.

    Args:
        runtime: Where the entry runs.
        entry: The entry.
        items: All pictures of the data set.
        split: The split.
        side: train, val or test.

    Returns:
        Columns file, cell, label, and one column per label. Probabilities are rounded to half precision, as they are
        stored, so that every figure recomputes exactly.

    Raises:
        TrainingDataError: A picture cannot be read any more.
    """
    rows = split.rows[side]
    runtime.load(entry)  # before the bar begins, which tells the time left
    files = ((items[i].file, items[i].source) for i in rows)
    results = list(
        progress_bar(classify_files(runtime, entry, files), f"scoring {side}", total=len(rows), unit="image")
    )
    failed = [f"{result.file}: {result.error}" for result in results if result.prediction is None]
    if failed:
        raise TrainingDataError(f"{len(failed)} pictures could not be read again. {failed[0]}")
    table = pd.DataFrame([result.prediction.network for result in results if result.prediction])
    table = as_stored(table, list(table.columns))
    table.insert(0, "file", [items[i].file for i in rows])
    table.insert(1, "cell", [split.cells[i] for i in rows])
    table.insert(2, "label", [items[i].label for i in rows])
    return table


def half_precision(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round a network's tensors to half precision; batch-norm counters stay whole numbers."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
