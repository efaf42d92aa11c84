"""Load the data of a recipe: read, decode, split, clean, resample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.audit.defaults import default_embedder
from training.audit.report import Findings, look_for_copies
from training.audit.report import run as run_audit
from training.fit.batches import Arrays
from training.fit.networks.auxiliary import read_known
from training.prepare.cleaning import Suspects, clean, resample, row_weights
from training.prepare.dataset import Prepared, TrainingDataError, item_names, map_labels, prepare, read_labelled
from training.prepare.laboratories import parts_without, read_mixed
from training.prepare.manifest import read_manifest, split_of_manifest
from training.prepare.splits import (
    Split,
    Table,
    conflicting,
    extended_split,
    joined_groups,
    parts_of,
    split_parts,
    table_of,
)
from training.recipe import Recipe
from zoo.cache import cache_folder
from zoo.cli.common import print_message
from zoo.data import AS_FOUND, DataSet, ReadOptions, read_dataset
from zoo.data.registry import augmented_sets
from zoo.sources.catalogue import get_entry


@dataclass(frozen=True)
class DataOptions:
    """Sources of a training's data.

    Attributes:
        data: The data set's folder or file, or for a mix of laboratories the folder that holds theirs.
        manifest: A split manifest that replaces the recipe's split.
        originals: Folder of the frames that augmented pictures were made from.
        reading: How the data set is read.
    """

    data: Path | None
    manifest: Path | None = None
    originals: Path | None = None
    reading: ReadOptions = AS_FOUND


@dataclass(frozen=True)
class TrainingData:
    """Data set, packed pictures with label numbers, and split."""

    prepared: Prepared
    arrays: Arrays
    split: Split


def load_training_data(recipe: Recipe, options: DataOptions, quiet: bool = False) -> TrainingData:
    """Load everything that a recipe trains on.

    Args:
        recipe: The recipe.
        options: Where the data are.
        quiet: Whether to print nothing, as in all but the first of several processes.

    Raises:
        DataError: The data cannot be read or do not fit the recipe.
    """
    if options.data is None:
        raise TrainingDataError("Name the data set's folder or file with --data.")
    prepared = prepare(read_recipe_data(recipe, options.data, options.reading), recipe.data.packed, recipe.data.crop)
    labels = np.array([recipe.labels.index(str(item.label)) for item in prepared.data.items])
    split = resample(split_pictures(recipe, options, prepared), recipe.balance, labels, recipe.training_seed)
    if not quiet:
        for line in prepared.data.about():
            print_message(line)
        for name, reason in prepared.unreadable.items():
            print_message(f"excluded {name}: {reason}")
        if options.manifest is None and _has_unused_sides(recipe, prepared.data):
            print_message(
                "The data set's own train and test folders are split anew, since copies of a cell may be in both. "
                "--set data.split=official keeps its test pictures, and leaves out what they have copies of."
            )
        print_split(split)
    weights = row_weights(recipe.balance, split, labels, split.cells)
    known = None
    if recipe.attributes:
        known = read_known(recipe.attributes, options.data, item_names(prepared.data.items))
        if known is None and not quiet:
            print_message("attributes.names is ignored: the names of these files hold no attributes.")
    surroundings = None
    if recipe.augment.surroundings:
        surroundings = prepare(prepared.data, recipe.data.packed, "square").pictures
    return TrainingData(prepared, Arrays(prepared.pictures, labels, weights, known, surroundings), split)


def _has_unused_sides(recipe: Recipe, data: DataSet) -> bool:
    """Whether a data set has train and test pictures of its own, and the recipe splits them another way."""
    return recipe.data.split in ("grouped", "stratified") and {"train", "test"} <= set(parts_of(data))


def read_recipe_data(recipe: Recipe, place: Path, reading: ReadOptions = AS_FOUND) -> DataSet:
    """The recipe's labelled pictures at `place`, or those of the laboratories below it that it mixes.

    Raises:
        DataError: The data cannot be read, or a label of the recipe does not occur.
    """
    if not recipe.data.mix:
        return read_labelled(place, recipe.data.labels or None, reading)
    data = read_mixed(place, recipe.data.mix, recipe.seed)
    return data.where(lambda item: item.label in recipe.data.labels)


def with_labels(recipe: Recipe, data: Path | None, reading: ReadOptions = AS_FOUND) -> Recipe:
    """The recipe; if it names no labels, with the classes of the data in alphabetical order, by the kinds they name."""
    if recipe.data.labels or recipe.ensemble or data is None:
        return recipe
    mapped = map_labels(read_dataset(data, reading), None, reading)
    labels = dict(sorted(mapped.items(), key=lambda pair: pair[::-1]))
    settings = recipe.data.model_copy(update={"labels": labels})
    return recipe.model_copy(update={"data": settings})


def split_pictures(recipe: Recipe, options: DataOptions, prepared: Prepared) -> Split:
    """Split pictures as the recipe or a manifest says, and clean the split as the recipe says.

    Raises:
        TrainingDataError: The original frames that the recipe needs are missing, or the manifest does not fit.
    """
    settings = recipe.data
    table, findings = _describe_pictures(recipe, options, prepared)
    if options.manifest is not None and options.data is not None:
        data = read_dataset(options.data, options.reading)
        mapped = {} if settings.mix else map_labels(data, settings.labels or None, options.reading)
        wanted = set(recipe.labels) | set(settings.labels) | set(mapped)
        split = split_of_manifest(read_manifest(options.manifest, data), table.files, wanted)
    elif settings.added:
        added = np.array([file.partition("/")[0] in settings.added for file in table.files])
        split = extended_split(table, added, settings.val_fraction, recipe.seed)
    else:
        train_fraction = 1 - settings.val_fraction - settings.test_fraction
        fractions = (train_fraction, settings.val_fraction, settings.test_fraction)
        split = split_parts(settings.split, table, fractions, recipe.seed, settings.parts)
    suspects = _suspects(findings, table) if findings else None
    return clean(split, recipe.clean, split.cells, table.pixels, suspects)


def _describe_pictures(recipe: Recipe, options: DataOptions, prepared: Prepared) -> tuple[Table, Findings | None]:
    """The table that a split is made from, with an audit's findings where the recipe needs them."""
    data = prepared.data
    if recipe.data.mix:
        return _table_of_named_cells(prepared, recipe.data.left_out), None
    # a manifest brings its cells along; for a stratified split identical pixels suffice, unless a rule needs cells
    cells_known = options.manifest is not None or (recipe.data.split == "stratified" and not recipe.needs_cells)
    if cells_known and not recipe.clean.needs_audit:
        labels = [str(item.label) for item in data.items]
        table = Table.plain(item_names(data.items), labels, prepared.pixels, parts_of(data))
        return replace(table, groups=joined_groups(table.cells, data.items)), None
    originals = find_originals(recipe, options)
    measured, _, cells = look_for_copies(data, cache_folder(), originals)
    table = table_of(data, measured, cells)
    if not recipe.clean.needs_audit:
        return table, None
    # finds the copies in the cache
    return table, run_audit(data, get_entry(default_embedder()), cache_folder(), originals)


def _table_of_named_cells(prepared: Prepared, test_laboratory: str) -> Table:
    """The table of a data set that names the cell of each picture; one laboratory may be kept for testing."""
    items = prepared.data.items
    parts = parts_without(prepared.data, test_laboratory) if test_laboratory else parts_of(prepared.data)
    return Table(
        tuple(item_names(items)),
        tuple(str(item.label) for item in items),
        tuple(str(item.cell) for item in items),
        prepared.pixels,
        tuple(parts),
        (True,) * len(items),
    )


def find_originals(recipe: Recipe, options: DataOptions) -> Path | None:
    """Folder of the frames that augmented pictures were made from, where the recipe needs it.

    Raises:
        TrainingDataError: The folder is missing, or the data set's TOML file does not tell of it and no option does.
    """
    if not recipe.data.originals or options.data is None:
        return options.originals
    sets = [original for copied, original in augmented_sets() if copied.name == recipe.data.name]
    known = [options.data.parent / original.place / original.frames for original in sets]
    originals = next((folder for folder in (options.originals, *known) if folder), None)
    if originals is None or not originals.is_dir():
        missing = f"the folder of the original frames, {originals}, does not exist"
        missing = missing if originals else "it is not known which frames they were made from"
        wanted = sets[0].citation if sets else "them"
        raise TrainingDataError(
            f"{recipe.data.name} holds augmented copies, and {missing}. Fetch {wanted} and name the folder of the "
            "frames with --originals: without it validation would leak."
        )
    return originals


def _suspects(findings: Findings, table: Table) -> Suspects:
    """The audit's findings as rows of the table."""
    row_of = {file: row for row, file in enumerate(table.files)}
    files = [item.file for item in findings.data.items]
    ambiguous = conflicting(table.labels, table.cells)
    return Suspects(
        frozenset(row_of[files[row]] for row in findings.outliers.rows),
        frozenset(row_of[files[row]] for row in findings.label_errors.rows),
        frozenset(row for row, cell in enumerate(table.cells) if cell in ambiguous),
    )


def print_split(split: Split) -> None:
    """Print the size of each side, what is excluded and how much leaks."""
    for side, rows in split.rows.items():
        print_message(f"{side}: {len(rows):,} images of {len({split.cells[i] for i in rows}):,} cells")
    for reason, count in split.left_out.items():
        print_excluded(count, f"images: {reason}")
    if split.leaky:
        print_message(f"LEAKY: {100 * split.leak_share:.1f} % of test images have a copy in training.")


def print_excluded(count: int, description: str) -> None:
    """Print how many pictures are excluded, if any."""
    if count:
        print_message(f"excluded {count:,} {description}")
