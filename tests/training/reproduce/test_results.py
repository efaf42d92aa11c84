"""Feature tables, and the generated tables: trained, resumed, written from the entries."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from tests.making import LABELS, draw_cell, make_entry
from training.cli import main
from training.fit.networks.classical import fit_head
from training.recipe import Head, load_recipe
from training.reproduce import champions, documents, results
from training.reproduce.formats import TABLE
from zoo.audits import reports
from zoo.benchmarks.leaderboard import other_laboratories
from zoo.entry import Entry, usable_entries
from zoo.entry.write import write_head
from zoo.files import write_json
from zoo.sources.catalogue import BUILTIN, FolderSource, get_entry, list_entries


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    for number, folder in enumerate(load_recipe("cnn60").data.labels):
        for part in ("TRAIN", "TEST"):
            inside = tmp_path / "data" / "dataset2" / part / folder
            inside.mkdir(parents=True)
            for seed in range(9 if part == "TRAIN" else 4):
                draw_cell(LABELS[number], seed + (100 if part == "TEST" else 0)).save(inside / f"{seed}.png")
    return tmp_path


def test_the_published_systems_are_all_rows(capsys):
    assert main(["reproduce", "--system", "C", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["id"] == "cnn60"
    published = {"cnn60", "cnn60_knn", "cnn60_svm", "cnn60_forest"}
    # the others are what its authors only wished for
    assert {row["id"] for row in rows if row["reported"]} == published


def test_recipes_follow_those_they_build_on():
    names = results.training_order()
    assert names.index("cnn60") < names.index("cnn60_knn")
    assert names.index("resnet50") < names.index("ensemble")
    assert names.index("pbc8-efficientnet-lite2") < names.index("pbc8-ensemble")
    chain = ["champion8-base", "champion8", "champion8-small", "champion4-small"]
    assert sorted(names.index(name) for name in chain) == [names.index(name) for name in chain]
    assert "starter" not in names


@pytest.fixture
def quick(monkeypatch):
    """The recipes as they are, but for an epoch or so, and splits that need no frames."""
    whole = load_recipe

    def short(name, changes=(), published=False, scratch=False):
        small = ["schedule.batch_size=8", "data.originals=false", "clean.outliers=false"]
        if not published:
            small.append("data.split=stratified")
        recipe = whole(name, published=published, scratch=scratch)
        small += [f"stages.{n}.epochs=1" for n in range(len(recipe.stages))] or ["schedule.epochs=1"]
        if recipe.model and recipe.network.head:
            small.append("model.input_size=[80, 80]")
        return whole(name, [*small, *changes], published, scratch)

    monkeypatch.setattr(results, "load_recipe", short)


ONLY = ["--only", "cnn60", "--only", "cnn60_knn", "--only", "resnet50_frozen"]


def test_recipes_are_trained_once_and_rows_come_from_their_entries(place, quick, capsys):
    command = ["reproduce", *ONLY, "--data", "data", "--zoo", "zoo", "--json"]
    assert main(command) == 0
    told = capsys.readouterr()
    rows = {row["id"]: row for row in json.loads(told.out[told.out.rindex("[{") :])}
    # ImageNet weights cannot be reached here: from random ones, and called so
    assert set(rows) == {"cnn60", "cnn60_knn", "resnet50_frozen", "resnet50_frozen_scratch"}
    assert rows["resnet50_frozen"]["honest"] is None
    assert "cannot be reached here" in told.err
    for name in ("cnn60", "cnn60_knn", "resnet50_frozen_scratch"):
        assert rows[name]["honest"]["images"] > 0
        assert rows[name]["published"]["images"] > 0
    assert rows["cnn60"]["parameters"] == 306_948
    assert rows["cnn60"]["minutes"] > 0
    entries = {entry.id: entry for entry in list_entries([FolderSource(place / "zoo", "here")])}
    assert entries["cnn60"].usable
    leaky = entries["cnn60_as_published"]
    assert isinstance(leaky, Entry)
    assert not leaky.usable
    assert "published elsewhere" in leaky.reason
    assert leaky.evaluation.benchmarks["dataset2-test-random"].leaky
    scratch = entries["resnet50_frozen_scratch"]
    assert not scratch.usable  # 47 MB are too many for the built-in zoo
    assert "From random weights" in (scratch.folder / "README.md").read_text()
    tested = pd.read_parquet(scratch.folder / "predictions" / "dataset2-test.parquet")
    assert len(tested)
    # a second time there is nothing to do
    before = {path: path.stat().st_mtime_ns for path in (place / "zoo").rglob("*")}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (place / "zoo").rglob("*")}


def test_no_training_starts_after_the_budget(place, quick, capsys):
    assert main(["reproduce", *ONLY, "--data", "data", "--zoo", "zoo", "--budget", "0"]) == 0
    assert "not started, the budget is spent" in capsys.readouterr().err
    assert not (place / "zoo").exists()


def test_a_failure_is_named_and_the_others_are_trained(place, quick, capsys):
    assert main(["reproduce", "--only", "minicnn", "--only", "cnn60", "--data", "data", "--zoo", "zoo"]) == 1
    assert "minicnn: There is nothing at" in capsys.readouterr().err
    assert (place / "zoo" / "cnn60").is_dir()


def test_the_table_marks_what_is_not_trained_yet(place):
    rows = results.result_rows(results.training_order(), [])
    results.write_table(place / "results.md", rows)
    text = (place / "results.md").read_text()
    assert text.count("not yet") >= 22
    assert "| `cnn60` | about 94 % | not yet | – | not yet |" in text
    assert "36,752,644" in text


@pytest.mark.artefacts
def test_the_results_page_is_that_of_the_entries(place):
    """It is generated: `python -m training reproduce`."""
    entries = list_entries([FolderSource(BUILTIN, "builtin")])
    results.write_table(place / "results.md", results.result_rows(results.training_order(), entries))
    assert (place / "results.md").read_text() == TABLE.read_text()


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_features_are_written_and_found_beside_a_report(place, monkeypatch, capsys, end):
    folder = make_entry(place / "my" / "five", "cnn60", head="head.skops")
    from_random = pd.DataFrame([[n % 7 + k * (n % 4) for k in range(128)] for n in range(60)]).to_numpy(float)
    write_head(folder, fit_head(Head(kind="knn", features=5), from_random, [n % 4 for n in range(60)], 0))
    make_entry(place / "my" / "plain", "test_resnet")
    monkeypatch.setenv("HEMAZOO_ZOO", str(place / "my"))
    out = place / "report" / f"features-five.{end}"
    assert main(["features", "five", "--data", "data/dataset2", "--out", str(out)]) == 0
    assert "52 pictures, 5 features" in capsys.readouterr().err
    table = reports.read_features(out)
    assert list(table.columns) == ["file", "label", "f1", "f2", "f3", "f4", "f5"]
    assert set(table["label"]) == {label.lower() for label in load_recipe("cnn60").data.labels}
    assert main(["features", "plain", "--data", "data/dataset2", "--out", str(place / f"x.{end}")]) == 0
    assert len(reports.read_features(place / f"x.{end}").columns) > 10
    assert main(["features", "plain", "--data", "data/dataset2", "--out", str(place / "x.xlsx")]) == 1
    assert "must end in" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["file,f1\na,1\n", "file,f1,f2\na,b,c\n", "", "f1,f2\n1,2\n"])
def test_a_table_without_features_is_refused(tmp_path, text):
    (tmp_path / "features-x.csv").write_text(text)
    with pytest.raises(reports.ReportError, match=r"features-x.csv"):
        reports.read_features(tmp_path / "features-x.csv")


@pytest.mark.artefacts
def test_the_champions_page_is_that_of_the_entries(tmp_path):
    """It is generated: `python -m training reproduce --champions`."""
    champions.write_page(tmp_path / "champions.md", BUILTIN)
    assert (tmp_path / "champions.md").read_text() == champions.TABLE.read_text()


@pytest.mark.artefacts
@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_tables_of_documents_are_those_of_the_entries(path):
    """They are generated: `python -m training reproduce`."""
    text = path.read_text()
    for name in documents.DOCUMENTS[path]:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1
    assert documents.renewed(path) == text
    usable = [entry.id for entry in list_entries([FolderSource(BUILTIN, "built-in")]) if entry.usable]
    if path == documents.MODELS:
        assert all(f"\n| `{name}` |" in text for name in usable)


def test_the_readme_table_is_short():
    entries = usable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))
    rows = documents.short_table(entries).splitlines()[2:]
    assert 4 <= len(rows) <= documents.MAX_SHORT_ROWS
    away = [other_laboratories(get_entry(row.split("`")[1])).mean.value for row in rows]
    assert away == sorted(away, reverse=True), "best in other laboratories first"
    assert not any("cnn60" in row for row in rows), "published systems have a page of their own"


def test_champions_are_compared_with_their_targets(tmp_path, capsys):
    folder = make_entry(tmp_path / "zoo" / "champion8", "test_resnet", 1)
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    reached = {"balanced_accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
    told = {
        "pbc-test-corrupted": {"corruption_error": {"value": 0.03, "low": 0.02, "high": 0.06}},
        "lisc": reached,
        "pbc-test": {"accuracy": metric},
    }
    records = {
        name: {"title": name, "labels": ["a", "b"], "confusion": [[1, 0], [0, 1]], "n_images": 2, "n_cells": 2}
        | {"metrics": found}
        for name, found in told.items()
    }
    write_json(folder / "evaluation.json", {"benchmarks": records})
    assert main(["reproduce", "--champions", "--zoo", str(tmp_path / "zoo"), "--table", str(tmp_path / "t.md")]) == 0
    lines = (tmp_path / "t.md").read_text().splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    cells = {row[0]: row[2] for row in rows}
    assert cells["PBC test, corrupted, balanced error"] == "**3.0 (2.0 to 6.0)**"
    assert cells["LISC, 4 classes, balanced: a validation laboratory"] == "**90.0 (80.0 to 95.0)**"
    assert cells["PBC test, accuracy"] == "50.0 (40.0 to 60.0)"
    assert cells["PBC test, balanced accuracy"] == "not scored"
