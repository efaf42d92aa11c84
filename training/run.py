"""What happens between a recipe and an entry? Read, split, clean, fit, judge once, write: the same for every kind."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from torch import nn

from training.audit.report import Findings, look_for_copies
from training.audit.report import run as run_audit
from training.fit.auxiliary import read_known
from training.fit.averaging import fit_all
from training.fit.batches import Arrays
from training.fit.classical import fit_head, hidden_vectors
from training.fit.loop import Fitted
from training.prepare.cleaning import Suspects, clean, resample, row_weights
from training.prepare.dataset import Prepared, TrainingDataError, item_names, prepare, read_labelled
from training.prepare.laboratories import parts_without, read_mixed
from training.prepare.splits import (
    Split,
    Table,
    conflicting,
    parts_of,
    read_manifest,
    split_of_manifest,
    split_parts,
    table_of,
)
from training.publish.ensemble import write_ensemble
from training.publish.export import Classical, Maker, Network, network_config, write_entry
from training.recipe import PUBLISHED, Recipe
from zoo.cache import cache_folder
from zoo.data import DataSet, read_dataset
from zoo.entry import Entry, EntryError, read_entry
from zoo.imaging.preprocess import preprocessor
from zoo.serving.loaded import device_name, load_model
from zoo.sources.catalogue import FolderSource, get_entry, list_entries, sources

EMBEDDER = "pbc8-efficientnet-lite0"  # the zoo's model whose features an audit compares


@dataclass(frozen=True)
class Job:
    """One recipe to be trained: where the data are, where the entry goes and where the running state is kept.

    `split` is a manifest that takes the place of the recipe's split, `originals` a folder of the frames that augmented
    pictures were made from.
    """

    recipe: Recipe
    data: Path | None
    out: Path
    work: Path
    split: Path | None = None
    originals: Path | None = None
    resume: bool = False
    finish: bool = False


@dataclass(frozen=True)
class Ready:
    """Data set, packed pictures, label numbers and split of a job, ready to be trained on."""

    prepared: Prepared
    arrays: Arrays
    split: Split


def say(message: object) -> None:
    """A line for people, on stderr."""
    print(message, file=sys.stderr)


def train(job: Job, accelerator: Accelerator) -> Entry | None:
    """Train a recipe and write its entry; None on all but the first of several processes.

    Raises DataError, FitError, CheckpointError, TrainingStopped, EntryError or WeightsError; the running state is kept
    then.
    """
    recipe, main = job.recipe, accelerator.is_main_process
    if recipe.ensemble:
        return write_ensemble(job.out, recipe, _members(job)) if main else None
    for name in _built_on(recipe):  # what is missing is said before pictures are read for minutes
        try:
            find_entry(name, job.out)
        except EntryError as error:
            raise EntryError(f"{error} Train it first, with --out {job.out.parent / name}.") from error
    with accelerator.main_process_first():  # the others find everything in the cache
        ready = make_ready(job, quiet=not main)
    made, training = (_classical if recipe.head else _network)(job, ready, accelerator)
    if not main:
        return None
    entry = write_entry(
        job.out, recipe, made, ready.prepared.data.items, ready.split, accelerator.device.type, training
    )
    shutil.rmtree(job.work, ignore_errors=True)  # all it held is in the entry
    return entry


def make_ready(job: Job, quiet: bool = False) -> Ready:
    """Read, pack, split and clean a job's data. Raises DataError."""
    if job.data is None:
        raise TrainingDataError("Name the data set's folder or file with --data.")
    recipe = job.recipe
    prepared = prepare(read_data(recipe, job.data), recipe.data.packed, recipe.data.crop)
    labels = np.array([recipe.labels.index(item.label) for item in prepared.data.items])
    split = resample(make_split(job, prepared), recipe.balance.resample, labels, recipe.seed)
    if not quiet:
        for name, reason in prepared.unreadable.items():
            say(f"left out {name}: {reason}")
        report(split)
    weights = row_weights(recipe.balance, split, labels, split.cells)
    known = None
    if recipe.attributes:
        known = read_known(recipe.attributes, job.data, item_names(prepared.data.items))
        if known is None and not quiet:
            say("The names of these files tell nothing beside their classes: attributes.names is left out.")
    around = None
    if recipe.augment.surroundings:
        around = prepare(prepared.data, recipe.data.packed, "square").pictures
    return Ready(prepared, Arrays(prepared.pictures, labels, weights, known, around), split)


def read_data(recipe: Recipe, place: Path) -> DataSet:
    """The recipe's labelled pictures at `place`, or those of the laboratories below it that it mixes.

    Raises DataError.
    """
    if not recipe.data.mix:
        return read_labelled(place, recipe.data.labels or None)
    data = read_mixed(place, recipe.data.mix, recipe.seed)
    return data.where(lambda item: item.label in recipe.data.labels)


def _network(job: Job, ready: Ready, accelerator: Accelerator) -> tuple[Maker, dict]:
    job.work.mkdir(parents=True, exist_ok=True)
    start = starting_network(job.recipe, ready.split, job.out)
    fitted = fit_all(job.recipe, ready.arrays, ready.split, job.work, accelerator, job.resume, job.finish, start)
    return Network(job.recipe, fitted), facts_of(fitted, accelerator.device)


def starting_network(recipe: Recipe, split: Split, out: Path) -> nn.Module | None:
    """The network of the entry that the recipe begins with, if it names one.

    Raises EntryError if it is not here, TrainingDataError if it was trained on another split.
    """
    if not recipe.network.begins_with_entry:
        return None
    entry = find_entry(recipe.network.weights, out)
    _same_split(entry, split)
    return load_model(entry)


def facts_of(fitted: Fitted, device: torch.device) -> dict:
    """What an entry's config tells of how its weights came about."""
    return {
        "seconds": round(fitted.seconds, 1),
        "images_per_second": round(fitted.images / max(fitted.seconds, 1e-6), 1),
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "device": device_name(device),
        "processes": fitted.processes,
    }


def _classical(job: Job, ready: Ready, accelerator: Accelerator) -> tuple[Maker, dict]:
    """A head on the features of the network that the recipe names, or on raw pixels."""
    recipe, head = job.recipe, job.recipe.head
    if head is None:
        raise TrainingDataError(f"{recipe.id} has no [head].")
    if head.of is None:
        network = timm.create_model(recipe.network.timm_name, num_classes=0, **recipe.network.timm_args)
        described = network_config(recipe)
        tensors = network.state_dict()
    else:
        entry = find_entry(_named(head.of, recipe), job.out)
        _same_split(entry, ready.split)
        network, config = load_model(entry), entry.config
        if config is None:
            raise TrainingDataError(f"{entry.id} cannot be used: {entry.reason}")
        described = {
            "architecture": config.architecture,
            "model_args": config.model_args,
            "pretrained_cfg": config.pretrained_cfg.model_dump(mode="json"),
        }
        tensors = network.state_dict()
    prepare_one = preprocessor(described["pretrained_cfg"])
    rows = ready.split.rows["train"]
    vectors = hidden_vectors(network, prepare_one, ready.arrays.pictures[rows], accelerator.device)
    say(f"fitting a {head.kind} on {len(rows):,} vectors of {vectors.shape[1]:,} values")
    pipeline = fit_head(head, vectors, ready.arrays.labels[rows], recipe.seed)
    return Classical(recipe, described, tensors, pipeline), {}


def _built_on(recipe: Recipe) -> list[str]:
    """The entries that the recipe begins with, or whose features it takes."""
    if recipe.head:
        return [_named(recipe.head.of, recipe)] if recipe.head.of is not None else []
    return [recipe.network.weights] if recipe.network.begins_with_entry else []


def _named(name: str, recipe: Recipe) -> str:
    """The entry a recipe builds on, of the same protocol."""
    return name + PUBLISHED if recipe.id.endswith(PUBLISHED) else name


def _members(job: Job) -> list[Entry]:
    """The entries that an ensemble's recipe names."""
    named = job.recipe.ensemble.members if job.recipe.ensemble else []
    return [find_entry(_named(name, job.recipe), job.out) for name in named]


def find_entry(name: str, out: Path) -> Entry:
    """A usable entry of the zoo, or one beside `out`. Raises EntryError if there is none."""
    beside = read_entry(out.parent / name)
    if beside.usable:
        return beside
    return get_entry(name, list_entries([*sources(), FolderSource(out.parent, str(out.parent))]))


def _same_split(entry: Entry, split: Split) -> None:
    if split.hash not in {benchmark.split_hash for benchmark in entry.evaluation.benchmarks.values()}:
        raise TrainingDataError(
            f"{entry.id}, which this builds on, was trained on another split: its training pictures may be test "
            "pictures here. Train it again, or name its split with --split."
        )


def make_split(job: Job, prepared: Prepared) -> Split:
    """The recipe's split, or that of the job's manifest, cleaned as the recipe says.

    Raises TrainingDataError if the original frames that the recipe needs are not there, or the manifest does not fit.
    """
    recipe, wanted, data = job.recipe, job.recipe.data, prepared.data
    found: Findings | None = None
    # a manifest brings its cells along; a stratified split knows identical pixels, unless a rule asks for more
    known = job.split is not None or (wanted.split == "stratified" and not recipe.needs_cells)
    if wanted.mix:
        table = _table_as_named(prepared, wanted.left_out)
    elif known and not recipe.clean.needs_audit:
        labels = [item.label for item in data.items]
        table = Table.plain(item_names(data.items), labels, prepared.pixels, parts_of(data))
    else:
        originals = originals_of(recipe, job.data, job.originals)
        measured, _, cells = look_for_copies(data, cache_folder(), originals)
        table = table_of(data, measured, cells)
        if recipe.clean.needs_audit:  # which finds in the cache what was just looked for
            found = run_audit(data, get_entry(EMBEDDER), cache_folder(), originals)
    if job.split is not None and job.data is not None:
        manifest = read_manifest(job.split, read_dataset(job.data))
        split = split_of_manifest(manifest, table.files, set(recipe.labels) | set(wanted.labels))
    else:
        shares = (1 - wanted.val_fraction - wanted.test_fraction, wanted.val_fraction, wanted.test_fraction)
        split = split_parts(wanted.split, table, shares, recipe.seed, wanted.parts)
    return clean(split, recipe.clean, split.cells, table.pixels, found and _suspects(found, table))


def _table_as_named(prepared: Prepared, left_out: str) -> Table:
    """The table of a data set that names the cell of each picture itself, a laboratory `left_out` to be tested on."""
    items = prepared.data.items
    parts = parts_without(prepared.data, left_out) if left_out else parts_of(prepared.data)
    return Table(
        tuple(item_names(items)),
        tuple(str(item.label) for item in items),
        tuple(str(item.cell) for item in items),
        prepared.pixels,
        tuple(parts),
        (True,) * len(items),
    )


def originals_of(recipe: Recipe, data: Path | None, named: Path | None) -> Path | None:
    """Folder of the frames that augmented pictures were made from, where the recipe needs it.

    Raises TrainingDataError if it is not there.
    """
    if not recipe.data.originals or data is None:
        return named
    originals = named or data.parent / "bccd" / "JPEGImages"
    if not originals.is_dir():
        raise TrainingDataError(
            f"{recipe.data.name} holds augmented copies, and {originals} with the original frames is not there. "
            "Fetch BCCD_Dataset and name its JPEGImages folder with --originals: without it validation would leak."
        )
    return originals


def _suspects(found: Findings, table: Table) -> Suspects:
    """The audit's findings as rows of the table."""
    place = {file: row for row, file in enumerate(table.files)}
    files = [item.file for item in found.data.items]
    bad = conflicting(table.labels, table.cells)
    return Suspects(
        frozenset(place[files[row]] for row in found.outliers.rows),
        frozenset(place[files[row]] for row in found.label_errors.rows),
        frozenset(row for row, cell in enumerate(table.cells) if cell in bad),
    )


def report(split: Split) -> None:
    """Tell what is trained, validated and tested on, and what is left out."""
    for side, rows in split.rows.items():
        say(f"{side}: {len(rows):,} images of {len({split.cells[i] for i in rows}):,} cells")
    for reason, count in split.left_out.items():
        warn(count, f"images: {reason}")
    if split.leaky:
        say(f"LEAKY: {100 * split.leak_share:.1f} % of test images have a copy in training.")


def warn(count: int, what: str) -> None:
    """Tell what is left out, if there is any."""
    if count:
        say(f"left out {count:,} {what}")


def with_labels(recipe: Recipe, data: Path | None) -> Recipe:
    """A recipe that names no labels takes the classes of the data, in the order of their names."""
    if recipe.data.labels or recipe.ensemble or data is None:
        return recipe
    found = sorted({str(item.label) for item in read_labelled(data, None).items})
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"labels": {label: label for label in found}})}
    )


def overview(recipe: Recipe) -> dict:
    """What `training recipes` tells: id, system, task, parameters (None for ensembles) and the whole recipe."""
    return {
        "id": recipe.id,
        "system": recipe.system,
        "title": recipe.title,
        "task": recipe.task,
        "parameters": parameters(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


def parameters(recipe: Recipe) -> int | None:
    """Parameters of the recipe's network, 0 for raw pixels, None for an ensemble; built without memory."""
    if recipe.model is None:
        return None
    classes = len(recipe.labels) or 2
    with torch.device("meta"):
        network = timm.create_model(recipe.model.timm_name, num_classes=classes, **recipe.model.timm_args)
    count = sum(value.numel() for value in network.parameters())
    if recipe.head:
        count -= sum(value.numel() for value in network.get_classifier().parameters())
    return count
