"""A data set, a laboratory or a benchmark is one TOML file (a benchmark with its rows), a corruption one function."""

from __future__ import annotations

import json

import pytest

from tests.making import BENCHMARK_TOML, DATASET_TOML, LABELS, draw_folder, make_entry

# the labels of its folders, and smears in their names
GROUPED = """
[labels]
EOS = "eosinophil"
NEU = "neutrophil"
LYM = "lymphocyte"
MON = "monocyte"

[cells]
by = "file"
pattern = "^00(.)"
"""
FOLDERS = {"eosinophil": "EOS", "lymphocyte": "LYM", "monocyte": "MON", "neutrophil": "NEU"}

LIST_DATA = """
import json, sys
from pathlib import Path
from training.prepare.laboratories import laboratories, read_mixed
from zoo.data.registry import datasets

mix = read_mixed(Path(sys.argv[1]), {"north": 9}, 0)
print(json.dumps({
    "listed": "north" in datasets(),
    "laboratory": laboratories(["north"]),
    "labels": mix.labels,
    "cells": sorted({item.cell for item in mix.items}),
    "most": int(mix.table.groupby("cell").size().max()),
}))
"""

SHOW_SCORES = """
import json, sys
from pathlib import Path
from training.evaluation.html_report import render
from training.publish.card import renew_card
from zoo.benchmarks import leaderboard
from zoo.benchmarks.eligibility import unscored
from zoo.entry import read_entry

entry = read_entry(Path(sys.argv[1]))
print(json.dumps({
    "unscored": unscored(entry),
    "board": leaderboard.in_words(leaderboard.table([entry]), {})["other labs, mean"].tolist(),
    "report": "north-test" in render([entry], {entry.id: entry.title}),
}))
"""

CORRUPTION = '''

@corruption("scratch", "Scratches", (1, 2, 3, 4, 5))
def scratch(image: Image.Image, width: int, random: np.random.Generator) -> Image.Image:
    """A white line of a width in pixels."""
    scratched = image.copy()
    row = int(random.integers(0, image.height))
    ImageDraw.Draw(scratched).line((0, row, image.width, row), fill=(255, 255, 255), width=width)
    return scratched
'''

LIST_PICTURES = """
import json, sys
from pathlib import Path
from zoo.benchmarks import corruptions, get_benchmark

pictures = get_benchmark("north-scratched").pictures(Path(sys.argv[1]))
print(json.dumps({
    "names": [name for name, *_ in pictures[:6]],
    "size": pictures[5][3].image().size,
    "statistic": get_benchmark("north-scratched").definition.main_statistic,
    "published": len(corruptions.SETS["blood"]),
}))
"""


LAYOUT = '''"""A list of pictures and labels in a text file."""

from zoo.data.layouts.registry import Reading, layout
from zoo.data.table import Item


@layout("list", "a list.lst of pictures and labels")
def read_list(tree, options):
    """Pictures that list.lst names."""
    if "list.lst" not in tree.files:
        return None
    rows = [line.split() for line in tree.read("list.lst").decode().splitlines()]
    items = tuple(Item(name, tree.source(name), label) for name, label in rows)
    return Reading(tree.name, "list", "list.lst names pictures", items)
'''

READ_LIST = """
import json, sys
from zoo.data import read_dataset
print(json.dumps([read_dataset(sys.argv[1]).layout, read_dataset(sys.argv[1]).labels]))
"""


@pytest.fixture
def data(tmp_path):
    draw_folder(tmp_path / "data" / "north", 4, names=FOLDERS)
    return tmp_path / "data"


@pytest.fixture
def with_data_set(project_copy):
    project_copy.write("zoo/data/sets/north.toml", DATASET_TOML.format(name="north", laboratory="north") + GROUPED)
    return project_copy


def add_benchmark(project, name: str, more: str = "") -> None:
    rows = ["file,cell,label", *(f"{FOLDERS[label]}/00{n}.png,{label}-{n},{label}" for label in LABELS for n in (0, 1))]
    project.write(f"zoo/benchmarks/sets/{name}.toml", BENCHMARK_TOML.format(data="north") + more)
    project.write(f"zoo/benchmarks/sets/{name}.csv", "\n".join(rows) + "\n")


def last_line(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


def test_a_data_set_file_is_listed_read_and_grouped(with_data_set, data):
    found = last_line(with_data_set.python("-c", LIST_DATA, str(data)))
    assert found == {
        "listed": True,
        "laboratory": ["north"],
        "labels": sorted(LABELS),
        "cells": [f"north/{n}" for n in range(4)],
        "most": 4,
    }


def test_a_layout_is_one_registered_function(project_copy, data):
    project_copy.write("zoo/data/layouts/lists.py", LAYOUT)
    (data / "north" / "list.lst").write_text("EOS/000.png one\nNEU/001.png two\n")
    assert last_line(project_copy.python("-c", READ_LIST, str(data / "north"))) == ["list", ["one", "two"]]
    assert "a list.lst of pictures and labels" in " ".join(
        project_copy.python("-m", "training", "audit", "--help").split()
    )


def test_a_benchmark_is_listed_shown_as_not_scored_and_scored(with_data_set, data, tmp_path):
    add_benchmark(with_data_set, "north-test", "leaderboard = true\n")
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    assert "north-test" in with_data_set.python("-m", "training", "evaluate", "--help")
    before = last_line(with_data_set.python("-c", SHOW_SCORES, str(entry)))
    assert "north-test" in before["unscored"] and before["report"] and before["board"] == ["not scored"]
    evaluate = ["evaluate", str(entry), "--benchmark", "north-test", "--data", str(data), "--device", "cpu"]
    with_data_set.python("-m", "training", *evaluate)
    after = last_line(with_data_set.python("-c", SHOW_SCORES, str(entry)))
    assert "north-test" not in after["unscored"] and after["report"] and "%" in after["board"][0]


def test_a_corruption_is_one_registered_function(with_data_set, data):
    with_data_set.append("zoo/benchmarks/corruptions.py", CORRUPTION)
    add_benchmark(with_data_set, "north-scratched", 'corruptions = "scratch"\n')
    found = last_line(with_data_set.python("-c", LIST_PICTURES, str(data)))
    assert found["names"] == [f"EOS/000.png#{kind}" for kind in ("clean-0", *(f"scratch-{n}" for n in range(1, 6)))]
    assert found["size"] == [224, 224] and found["statistic"] == "corruption_error"
    assert found["published"] == 56
