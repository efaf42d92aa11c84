"""`python -m training crossval`: each cell is predicted by a model that was trained without it."""

from __future__ import annotations

import json
import re

import pytest

from tests.making import LABELS, add_evaluation, draw_smears, make_entry
from tests.training.fit.test_train import RECIPE
from training.cli import main
from zoo.entry import read_entry, read_predictions

FOLDS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn smears, two copies of one of them, and a recipe that is quickly trained."""
    folder = tmp_path_factory.mktemp("cross")
    data = draw_smears(folder / "drawn", 8)
    (data / LABELS[0] / "copy.png").write_bytes((data / LABELS[0] / "003.png").read_bytes())
    (folder / "drawn.toml").write_text(RECIPE.replace("epochs = 6", "epochs = 1"))
    return folder


def run(place, *more: object) -> int:
    where = ["--data", place / "drawn", "--work", place / "folds", "--folds", FOLDS, "--device", "cpu"]
    return main(["crossval", str(place / "drawn.toml"), *map(str, where), *map(str, more)])


def test_every_cell_is_predicted_by_a_model_trained_without_it(place, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    assert main(["train", "drawn.toml", "--data", "drawn", "--out", "zoo/drawn", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "drawn"  # epochs are printed on stderr
    assert run(place, "--into", "zoo/drawn", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    entry = read_entry(place / "zoo" / "drawn")
    table = read_predictions(entry, "drawn-grouped-cv")
    assert len(table) == 33 and table["file"].is_unique
    assert told["accuracy"]["value"] == entry.evaluation.benchmarks["drawn-grouped-cv"].metrics["accuracy"].value
    assert table[table["file"].str.contains("003|copy") & (table["label"] == LABELS[0])]["cell"].nunique() == 1
    for number in range(FOLDS):
        manifest = json.loads((place / "folds" / f"fold-{number}" / "split.json").read_text())
        sides = {side: {row[2] for row in manifest["rows"] if row[3] == side} for side in ("train", "val", "test")}
        assert not sides["test"] & (sides["train"] | sides["val"])
        fold = read_entry(place / "folds" / f"fold-{number}" / "drawn")
        mine = read_predictions(fold, "drawn-test").set_index("file")[LABELS]
        assert table.set_index("file").loc[mine.index, LABELS].equals(mine)
    # existing folds are not trained again
    weights = {path: path.stat().st_mtime_ns for path in (place / "folds").rglob("*.safetensors")}
    assert run(place) == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "folds").rglob("*.safetensors")} == weights


def test_folds_of_another_recipe_are_refused(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_CACHE", str(place / "cache"))
    other = make_entry(tmp_path / "other", "test_resnet")
    assert run(place, "--into", other) == 1
    assert "was not made by drawn" in capsys.readouterr().err
    assert main(["crossval", "ensemble", "--data", str(place / "drawn")]) == 2
    assert "cross-validate its members" in capsys.readouterr().err


def test_report_shows_the_entries_scores(tmp_path, capsys):
    folders = [
        make_entry(tmp_path / name, "test_resnet", seed, title=f"{name} & > b") for seed, name in enumerate("ab")
    ]
    for seed, folder in enumerate(folders):
        add_evaluation(folder, seed)
    out = tmp_path / "report.html"
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "a & > b" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # an entry's text is escaped
    for folder in folders:
        for metric in read_entry(folder).evaluation.benchmarks["drawn-test"].metrics.values():
            assert f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})" in page
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', page)  # needs nothing else
    empty = make_entry(tmp_path / "empty", "test_resnet")
    assert main(["report", str(empty), "--out", str(out)]) == 1
    assert "no predictions to compare" in capsys.readouterr().err
