"""The published systems: their table, the entries that reproduce them, the count, and importance of features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.recipe import load_recipe
from zoo.audits.reports import BUILTIN as AUDITS
from zoo.audits.reports import read_report
from zoo.entry import EntryError, readable_entries
from zoo.sources.catalogue import BUILTIN, FolderSource, list_entries
from zoo.systems import count, honest_rows, published_systems, reproductions
from zoo.systems.features import feature_importance


@pytest.fixture(scope="module")
def entries():
    return readable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))


def test_every_published_model_is_a_recipe_of_its_system():
    for letter, system in published_systems().items():
        assert {load_recipe(model.id).system for model in system.models} == {letter}


def test_every_wish_is_a_recipe_of_its_system_with_a_base():
    wishes = [(letter, wish) for letter, system in published_systems().items() for wish in system.wishes]
    assert {letter for letter, _ in wishes} == {"C", "E"}
    for letter, wish in wishes:
        assert {load_recipe(name).system for name in (wish.id, wish.base)} == {letter}


def test_a_model_counts_once_and_packaged_and_scratch_apart(entries):
    found = count(entries)
    assert found.models == sum(len(system.models) for system in published_systems().values()) == 22
    native = next(one for one in entries if one.id == "cnn60")
    assert count([native]).native == count([native, native]).honest == 1
    assert count([]).honest == 0
    assert found.honest == found.native + found.packaged + found.scratch


def test_a_command_is_named_for_the_weights_of_the_row(entries):
    rows = reproductions(published_systems()["E"], entries)
    assert {row.recipe for row in rows} >= {"cnn5_128", "vgg16_frozen_packaged", "vgg16_frozen --scratch"}
    assert honest_rows(rows)["vgg16_frozen"].id == "vgg16_frozen_packaged"
    assert all(load_recipe(row.recipe.removesuffix(" --scratch")) for row in rows)
    assert count(entries).sentence.startswith(f"{count(entries).honest} of 22 models")


def test_a_model_without_an_entry_has_a_row_and_a_reason():
    for system in published_systems().values():
        rows = reproductions(system, [])
        assert [row.model for row in rows] == list(system.models)


def test_what_has_no_honest_figure_says_why(entries):
    for system in published_systems().values():
        honest = {row.model.id for row in reproductions(system, entries) if row.honest}
        assert not [model.id for model in system.models if model.id not in honest and not model.missing]


def test_a_head_falls_when_its_features_are_shuffled(entries):
    forest = next(one for one in entries if one.id == "cnn60_forest")
    audit = read_report(AUDITS / "dataset2")
    features = pd.read_parquet(audit.features["cnn60_knn"]).iloc[::40]
    features = features.assign(label=features["label"].str.lower())
    falls = feature_importance(forest, features)
    assert list(falls["feature"]) == [f"feature {number}" for number in range(1, 6)]
    assert falls["fall"].max() > 0.05
    constant = features.assign(**{f"f{number}": np.float32(0) for number in range(1, 6)})
    assert (feature_importance(forest, constant)["fall"] == 0).all()
    with pytest.raises(EntryError, match="judges no"):
        feature_importance(forest, features.drop(columns="f5"))
