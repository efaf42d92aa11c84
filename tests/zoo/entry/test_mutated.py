"""Mutated entries are refused with a sentence or used, and never end the process."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import add_evaluation, make_entry
from tests.mutating import mutants
from tests.zoo.serving.test_heads import KINDS, blobs, make_headed
from zoo.entry.write import write_neighbours
from zoo.serving.ood import fit_ood_detector, write_ood_detector

ROOT = Path(__file__).parents[3]
PATIENCE = 900  # seconds for all entries of a child process
MAX_SECONDS = 20  # of one entry


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An entry of each kind, by name."""
    place = tmp_path_factory.mktemp("good")
    found = {"plain": make_entry(place / "plain", "cnn60"), "resnet": make_entry(place / "resnet", "test_resnet")}
    vectors, labels = blobs()
    write_ood_detector(found["plain"], fit_ood_detector(vectors, labels, vectors))
    found |= {kind: make_headed(place / kind, kind) for kind in KINDS}
    write_neighbours(found["knn"], [f"{n}.png" for n in range(len(labels))], [str(n) for n in labels])
    for seed, folder in enumerate(found.values()):
        add_evaluation(folder, seed)
    return found


def use_all(folders: list[Path]) -> tuple[list[dict[str, Any]], list[Path]]:
    """Use entries in child processes; returns their records, and those that ended a process."""
    records: list[dict[str, Any]] = []
    ended: list[Path] = []
    left = list(folders)
    while left:
        child = subprocess.run(
            [sys.executable, "-m", "tests.use_entries", *map(str, left)], cwd=ROOT, capture_output=True, text=True,
            timeout=PATIENCE, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
        found = [record for line in child.stdout.splitlines() if "folder" in (record := json.loads(line))]
        records += found
        if len(found) == len(left):
            break
        ended.append(left[len(found)])
        left = left[len(found) + 1 :]
    return records, ended


def check(good: dict[str, Path], place: Path, count: int, seed: int) -> collections.Counter[str]:
    """Use mutated entries; returns how many were refused and used."""
    made = {folder: done for done, folder in mutants(good, place, count, seed)}
    records, ended = use_all(list(made))
    assert not ended, [made[folder] for folder in ended]
    escaped = [(made[Path(one["folder"])], one["said"][0][-1500:]) for one in records if one["became"] == "escaped"]
    assert not escaped, "\n\n".join(f"{done}\n{said}" for done, said in escaped[:5])
    for one in records:
        assert one["seconds"] < MAX_SECONDS, made[Path(one["folder"])]
        for sentence in one["said"]:
            assert sentence.endswith((".", ")")) and len(sentence) < 700, sentence
    return collections.Counter(one["became"] for one in records)


def test_good_entries_are_used(good):
    records, ended = use_all(list(good.values()))
    assert not ended
    assert [(one["became"], one["said"]) for one in records] == [("used", [])] * len(good)


def test_mutated_entries_are_refused_or_used(good, tmp_path):
    found = check(good, tmp_path, 40, 1)
    assert found["refused"] > 10


@pytest.mark.artefacts
def test_two_hundred_mutated_entries_are_refused_or_used(good, tmp_path):
    found = check(good, tmp_path, 200, 2)
    assert found["refused"] > 50
    assert np.sum(list(found.values())) == 200
