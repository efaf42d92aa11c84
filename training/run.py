"""Train a recipe and write its entry: load the data, fit, score the test split once, write."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import Accelerator
from torch import nn

from training.fit.averaging import train_runs, unfinished_runs
from training.fit.networks.classical import fit_head, hidden_vectors
from training.fit.plan import describe_plan
from training.fit.processor.precision import seconds_a_picture, with_precision
from training.fit.state import Fitted
from training.prepare.dataset import TrainingDataError
from training.prepare.splits import Split
from training.prepare.training_data import DataOptions, TrainingData, load_training_data
from training.publish.ensemble import write_ensemble
from training.publish.export import FittedHead, FittedModel, FittedNetwork, network_config, write_entry
from training.recipe import PUBLISHED, Head, Recipe
from zoo.cli.common import print_message
from zoo.data import AS_FOUND, ReadOptions
from zoo.entry import Entry, EntryError, read_entry
from zoo.imaging.preprocess import preprocessor
from zoo.serving.devices import device_name
from zoo.serving.models.loading import load_model
from zoo.sources.catalogue import FolderSource, get_entry, list_entries, sources


@dataclass(frozen=True)
class TrainingJob:
    """A recipe to be trained.

    Attributes:
        recipe: The recipe.
        data: Where its data are; None for an ensemble.
        out: Folder of the entry to write.
        work: Folder of the running state, which is removed when the entry is written.
        manifest: A split manifest that replaces the recipe's split.
        originals: Folder of the frames that augmented pictures were made from.
        resume: Whether to continue the run in `work`.
        finish: Whether to make an entry of the best epoch so far of the run in `work`.
        reading: How the data set is read.
    """

    recipe: Recipe
    data: Path | None
    out: Path
    work: Path
    manifest: Path | None = None
    originals: Path | None = None
    resume: bool = False
    finish: bool = False
    reading: ReadOptions = AS_FOUND


def train(job: TrainingJob, accelerator: Accelerator) -> Entry | None:
    """Train a recipe and write its entry.

    Returns:
        The entry; None in all but the first of several processes.

    Raises:
        DataError: The data cannot be used.
        EntryError: An entry that the recipe builds on is missing.
        FitError: Training failed.
        CheckpointError: The running state does not fit the recipe.
        WeightsError: The recipe's initial weights are not available.
        TrainingStopped: Training was interrupted; the running state is kept.
    """
    recipe, is_main = job.recipe, accelerator.is_main_process
    if recipe.ensemble:
        members = [find_entry(_same_protocol(name, recipe), job.out) for name in recipe.ensemble.members]
        return write_ensemble(job.out, recipe, members) if is_main else None
    _check_base_entry(job)  # before the slow data load
    with accelerator.main_process_first():  # the other processes find everything in the cache
        options = DataOptions(job.data, job.manifest, job.originals, job.reading)
        data = load_training_data(recipe, options, quiet=not is_main)
    maker: FittedModel
    facts: dict[str, Any] = {}
    if recipe.head:
        maker = _fit_classical(job, recipe.head, data, accelerator.device)
    else:
        maker, facts = _fit_network(job, data, accelerator)
    if not is_main:
        return None
    items = data.prepared.data.items
    entry = write_entry(job.out, recipe, maker, items, data.split, accelerator.device.type, facts)
    shutil.rmtree(job.work, ignore_errors=True)  # everything in it is in the entry
    return entry


def find_entry(name: str, out: Path) -> Entry:
    """A usable entry beside the folder `out`, or of the zoo. Raises EntryError if there is none."""
    sibling = read_entry(out.parent / name)
    if isinstance(sibling, Entry) and sibling.usable:
        return sibling
    return get_entry(name, list_entries([*sources(), FolderSource(out.parent, str(out.parent))]))


def starting_network(recipe: Recipe, split: Split, out: Path) -> nn.Module | None:
    """The network of the entry that a recipe starts from; None if it starts from none.

    Raises:
        EntryError: The entry is missing.
        TrainingDataError: The entry was trained on another split.
    """
    if not recipe.network.begins_with_entry:
        return None
    entry = find_entry(recipe.network.weights, out)
    _check_split(entry, split)
    return load_model(entry)


def _fit_network(job: TrainingJob, data: TrainingData, accelerator: Accelerator) -> tuple[FittedModel, dict[str, Any]]:
    """Fit the recipe's network; also returns what the entry's config records of the training."""
    job.work.mkdir(parents=True, exist_ok=True)
    start = starting_network(job.recipe, data.split, job.out)
    begun = next(iter(unfinished_runs(job.work)), None) if job.resume or job.finish else None
    recipe = with_precision(job.recipe, accelerator, begun)
    if accelerator.is_main_process:
        speed = seconds_a_picture(job.recipe, accelerator.device)
        print_message(describe_plan(recipe, {side: len(rows) for side, rows in data.split.rows.items()}, speed))
    fitted = train_runs(recipe, data.arrays, data.split, job.work, accelerator, job.resume, job.finish, start)
    facts = _training_facts(fitted, accelerator.device) | {"precision": recipe.schedule.precision}
    return FittedNetwork(job.recipe, fitted), facts


def _training_facts(fitted: Fitted, device: torch.device) -> dict[str, Any]:
    return {
        "seconds": round(fitted.seconds, 1),
        "images_per_second": round(fitted.images / max(fitted.seconds, 1e-6), 1),
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "device": device_name(device),
        "processes": fitted.processes,
    }


def _fit_classical(job: TrainingJob, head: Head, data: TrainingData, device: torch.device) -> FittedModel:
    """Fit a classical head on the features of another entry's network, or on raw pixels."""
    recipe = job.recipe
    if head.of is None:
        network = timm.create_model(recipe.network.timm_name, num_classes=0, **recipe.network.timm_args)
        config = network_config(recipe)
    else:
        entry = find_entry(_same_protocol(head.of, recipe), job.out)
        _check_split(entry, data.split)
        network, config = load_model(entry), _config_of(entry)
    rows = data.split.rows["train"]
    preprocess = preprocessor(config["pretrained_cfg"])
    vectors = hidden_vectors(network, preprocess, data.arrays.pictures[rows], device)
    print_message(f"fitting a {head.kind} on {len(rows):,} vectors of {vectors.shape[1]:,} values")
    pipeline = fit_head(head, vectors, data.arrays.labels[rows], recipe.seed)
    return FittedHead(recipe, config, network.state_dict(), pipeline)


def _config_of(entry: Entry) -> dict[str, Any]:
    """Part of an entry's config that says how its network is built and what input it expects."""
    config = entry.config
    return {
        "architecture": config.architecture,
        "model_args": config.model_args,
        "pretrained_cfg": config.pretrained_cfg.model_dump(mode="json"),
    }


def _check_base_entry(job: TrainingJob) -> None:
    """Raise EntryError if the entry that the recipe starts from, or whose features it uses, is missing."""
    recipe = job.recipe
    name = None
    if recipe.head:
        name = _same_protocol(recipe.head.of, recipe) if recipe.head.of is not None else None
    elif recipe.network.begins_with_entry:
        name = recipe.network.weights
    if name is None:
        return
    try:
        find_entry(name, job.out)
    except EntryError as error:
        raise EntryError(f"{error} Train it first, with --out {job.out.parent / name}.") from error


def _same_protocol(name: str, recipe: Recipe) -> str:
    """The id of the entry `name` under the recipe's protocol: the published one, or ours."""
    return name + PUBLISHED if recipe.id.endswith(PUBLISHED) else name


def _check_split(entry: Entry, split: Split) -> None:
    """Raise TrainingDataError if an entry was trained on another split."""
    known = {benchmark.split_hash for benchmark in entry.evaluation.benchmarks.values()}
    if not {split.hash, split.extends} & known:
        raise TrainingDataError(
            f"{entry.id}, which this recipe builds on, was trained on another split: its training pictures may be test "
            "pictures here. Train it again, or name its split with --split."
        )
