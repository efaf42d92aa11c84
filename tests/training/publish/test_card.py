"""Model cards are generated from the files of an entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training.detection.card import render_detector_card
from training.publish.card import render_card
from training.recipe import read_recipe
from zoo.entry import CARD, Entry, load_entry, readable_entries
from zoo.sources.catalogue import BUILTIN, FolderSource

ENTRIES = readable_entries(FolderSource(BUILTIN, "built-in").entries())


def render(entry: Entry) -> str:
    return render_detector_card(entry) if entry.is_detector else render_card(entry, read_recipe(entry.recipe, entry.id))


def with_version(entry: Entry, version: str) -> Entry:
    ours = entry.config.zoo.model_copy(update={"hemazoo_version": version})
    return replace(entry, config=entry.config.model_copy(update={"zoo": ours}))


def test_a_card_states_the_version_that_made_the_entry():
    entry = load_entry(BUILTIN / "cnn60")
    assert render(with_version(entry, "1.2.3")) == render(entry) + "\nMade with HemaZoo 1.2.3.\n"


def test_a_card_has_a_section_for_what_was_measured_only():
    entry = load_entry(BUILTIN / "cnn60")
    card = render(entry)
    assert "## Explanations" in card
    assert "## Out-of-distribution pictures" in card
    bare = replace(entry, evaluation=entry.evaluation.model_copy(update={"explanations": {}, "ood": None}))
    assert "## Explanations" not in render(bare)
    assert "## Out-of-distribution pictures" not in render(bare)


@pytest.mark.artefacts
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.recipe], ids=lambda entry: entry.id)
def test_the_cards_of_built_in_entries_are_fresh(entry):
    assert (entry.folder / CARD).read_text(encoding="utf-8") == render(entry), "renew: python -m training reproduce"
