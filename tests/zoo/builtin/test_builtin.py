"""Built-in entries: complete, small, and consistent with their stored predictions.

Slow checks run on a few typical entries; on all others they carry the marker `artefacts`.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import zoo.architectures  # noqa: F401
from tests.making import LABELS, draw_cell
from training.recipe import PUBLISHED, SCRATCH, recipe_ids
from zoo import benchmarks
from zoo.attribution import METHODS
from zoo.benchmarks import CROSS_VALIDATION, LEFT_OUT, scoring
from zoo.benchmarks.eligibility import is_scored, refusal
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.entry import CARD, Entry, read_history, read_predictions
from zoo.scores import metrics
from zoo.scores.calibration import scaling_on
from zoo.scores.predictions import confusion, label_arrays
from zoo.serving.runtime import Runtime, methods_for
from zoo.sources.catalogue import BUILTIN, FolderSource, crop_detector_hash, list_entries

ENTRIES = {entry.id: entry for entry in list_entries([FolderSource(BUILTIN, "builtin")])}
USABLE = [name for name, entry in ENTRIES.items() if entry.usable]
NETWORKS = [n for n in USABLE if not ENTRIES[n].config.zoo.head and not ENTRIES[n].config.zoo.members]
# what plain timm can run by itself
PLAIN = [name for name in NETWORKS if ENTRIES[name].config.zoo.crop == "none"]
MAX_WEIGHTS, MAX_ALL, MAX_PREDICTIONS = 10_000_000, 80_000_000, 1_000_000


def typical(names, *always):
    """Parameters: some names always, all others for releases only."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.artefacts) for name in names]


@pytest.fixture(params=ENTRIES)
def entry(request):
    return ENTRIES[request.param]


def test_built_in_entries_exist_and_are_small():
    assert {"champion8", "champion4", "champion8-small", "champion4-small", "cnn60"} <= set(USABLE)
    assert all(isinstance(entry, Entry) for entry in ENTRIES.values())
    weights = [path for end in ("safetensors", "skops") for path in BUILTIN.rglob(f"*.{end}")]
    assert sum(path.stat().st_size for path in weights) < MAX_ALL
    assert not [path for path in BUILTIN.rglob("*") if path.name.startswith(".")]


def test_files_are_small(entry):
    for path in entry.folder.iterdir():
        if path.suffix in (".safetensors", ".skops"):
            assert path.stat().st_size < MAX_WEIGHTS
    for path in (entry.folder / "predictions").iterdir():
        assert path.stat().st_size < MAX_PREDICTIONS


def test_each_has_its_recipe(entry):
    base = entry.id.removesuffix(PUBLISHED).removesuffix(SCRATCH)
    assert base in recipe_ids()
    assert entry.config.zoo.model_extra["recipe"]["id"] == entry.id


def test_cells_are_cut_by_the_detector_that_cut_them_for_training(entry):
    """Whoever replaces the detector trains and scores these entries again."""
    if not entry.config.zoo.members:
        assert entry.config.zoo.cut_by == crop_detector_hash(entry.config.zoo.crop)


def test_entries_without_weights_name_their_place(entry):
    if not entry.usable:
        assert "published elsewhere" in entry.reason
    # weights trained on copies of test pictures are not distributed
    assert entry.usable != entry.id.endswith(PUBLISHED) or not entry.usable


@pytest.mark.parametrize("name", typical(ENTRIES, "champion4", "cnn60"))
def test_stored_scores_follow_from_stored_predictions(name):
    """The card states them too."""
    entry = ENTRIES[name]
    card = (entry.folder / CARD).read_text(encoding="utf-8")
    stated = yaml.safe_load(re.match(r"---\n(.*?)\n---", card, re.DOTALL)[1])["model-index"][0]["results"]
    for benchmark_name, benchmark in entry.evaluation.benchmarks.items():
        table = read_predictions(entry, benchmark_name)
        truth, shares = label_arrays(table, benchmark.labels)
        counts = confusion(truth, shares.argmax(1), len(benchmark.labels))
        assert counts.tolist() == benchmark.confusion
        assert len(table) == benchmark.n_images
        found = metrics.as_dict(
            scoring.intervals(scoring.score(table, benchmark.labels, scaling_on(entry, benchmark_name)))
        )
        assert set(found) == set(benchmark.metrics)
        for metric, value in benchmark.metrics.items():
            assert found[metric] == pytest.approx(value.model_dump(), abs=1e-6)
        if benchmark.role == "test":
            mine = [result for result in stated if result["dataset"]["type"] == benchmark_name]
            on_card = {m["type"]: m["value"] for result in mine for m in result["metrics"]}
            assert on_card["accuracy"] == pytest.approx(np.trace(counts) / counts.sum(), abs=5e-5)


def test_leaks_between_validation_and_test_are_declared(entry):
    roles = {name: benchmark.role for name, benchmark in entry.evaluation.benchmarks.items()}
    tuned = [set(read_predictions(entry, name)["cell"]) for name, role in roles.items() if role == "validation"]
    # predictions of a cross-validation or of a laboratory left out are by other models
    others = (CROSS_VALIDATION, LEFT_OUT)
    apart = [name for name, role in roles.items() if role == "test" and not name.endswith(others)]
    tested = [set(read_predictions(entry, name)["cell"]) for name in apart]
    # weights that a recipe names were chosen by laboratories that no member was trained on
    named = isinstance((entry.recipe.get("ensemble") or {}).get("weights"), list)
    assert len(tuned) == (0 if named else 1) and tested
    leaky = entry.id.endswith(PUBLISHED)
    found = entry.evaluation.benchmarks
    own = [b for n, b in found.items() if b.title.startswith(entry.data_set) and not n.endswith(others)]
    assert len(own) == (1 if named else 2)
    assert all(b.leaky == leaky == ("LEAKY" in b.title) for b in own)
    assert leaky or all(part.isdisjoint(cells) for part in tuned for cells in tested)


@pytest.mark.artefacts
def test_entries_are_scored_on_every_benchmark_that_fits(entry):
    """A model with weights has scores for all benchmarks of its labels, corrupted ones at home, in current versions."""
    if not entry.usable:
        return
    for name in benchmarks.names():
        benchmark = benchmarks.get_benchmark(name)
        if name.endswith(benchmarks.CORRUPTED) and name != f"{home_benchmark(entry)}{benchmarks.CORRUPTED}":
            continue  # corrupted pictures are a measure at home
        if refusal(entry, benchmark) is None:
            assert is_scored(entry, benchmark), name


@pytest.mark.parametrize("name", PLAIN)
def test_plain_timm_loads_the_entry_and_agrees(name):
    entry = ENTRIES[name]
    model = timm.create_model(f"local-dir:{entry.folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with Runtime("cpu") as runtime, torch.no_grad():
        for seed in range(8):
            cell = draw_cell("neutrophil", seed, (160, 160))
            theirs = model(transform(cell)[None]).softmax(1)[0].tolist()
            found = runtime.classify(entry.with_views(1), cell)  # timm classifies one view
            assert list(found.network.values()) == pytest.approx(theirs, abs=1e-2)


@pytest.mark.parametrize("name", typical(USABLE, "champion8-small", "cnn60", "cnn60_svm"))
def test_maps_depend_on_picture_and_class_and_mirror_with_the_picture(name):
    """Maps of other classes and pictures differ; the map of a mirrored picture is mirrored."""
    entry = ENTRIES[name]
    field = Image.new("RGB", (192, 144), (232, 222, 214))
    field.paste(draw_cell("neutrophil", 3, (96, 96)), (0, 24))
    with Runtime("cpu", "fp32") as runtime:
        explain = partial(runtime.explain, entry)
        pictures = [draw_cell(kind, 3) for kind in LABELS]
        maps = {(n, label): explain(p, label).values for n, p in enumerate(pictures) for label in entry.labels[:4]}
        # a class without evidence has an empty map
        found = [values.tobytes() for values in maps.values() if values.std() > 0.01]
        if entry.recipe.get("head", {}) and entry.recipe["head"]["kind"] == "knn":
            return  # one neighbour decides, so that hiding a part changes nothing: its maps are empty
        assert len(found) >= (2 if entry.config.zoo.head else 6)
        assert len(set(found)) > 0.9 * len(found)
        if entry.config.architecture == "pixels":
            return  # trees look at places of the crop, whatever is there: a mirrored picture has another map
        unmirrored, mirrored = [], []
        for label in entry.labels:
            here = explain(field, label).values
            there = explain(field.transpose(Image.Transpose.FLIP_LEFT_RIGHT), label).values
            if here.std() > 0.01 and there.std() > 0.01:
                unmirrored.append(np.corrcoef(here.ravel(), there.ravel())[0, 1])
                mirrored.append(np.corrcoef(here[:, ::-1].ravel(), there.ravel())[0, 1])
        assert mirrored
        assert np.mean(mirrored) > np.mean(unmirrored)


@pytest.mark.parametrize("name", typical(NETWORKS, "champion8-small", "cnn60", "minicnn"))
def test_every_quick_method_explains_the_entry(name):
    entry = ENTRIES[name]
    with Runtime("cpu") as runtime:
        for method in [method for method in methods_for(entry) if METHODS[method].quick]:
            found = runtime.explain(entry, draw_cell("lymphocyte", 2), method=method)
            assert found.values.std() > 0, method
        assert len(runtime.layers(entry)) >= 2
        assert runtime.concepts(entry, draw_cell("lymphocyte", 2)).maps.max() == pytest.approx(1, abs=0.05)
        model = runtime.model(entry).model
        assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())


def test_history_and_card_are_complete(entry):
    if not entry.config.zoo.head and not entry.config.zoo.members:
        assert {"epoch", "train_loss", "val_loss", "val_accuracy"} <= set(read_history(entry))
    card = (entry.folder / CARD).read_text(encoding="utf-8")
    assert "Not a medical device" in card
    assert all(note in card for b in entry.evaluation.benchmarks.values() if b.role == "test" for note in b.notes)
    assert str(Path.home()) not in card
