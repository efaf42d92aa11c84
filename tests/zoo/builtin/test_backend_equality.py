"""Every built-in network answers the same by each backend."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends import MAP_TOLERANCE, answers, assert_equal_answers
from tests.making import LABELS, draw_cell
from zoo.benchmarks import get_benchmark
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import BUILTIN, FolderSource, get_entry, list_entries

pytest.importorskip("openvino")
USABLE = [one.id for one in list_entries([FolderSource(BUILTIN, "builtin")]) if one.usable]
ALWAYS = ("cnn60_svm", "champion8-small")
PICTURES = [draw_cell(label, seed, (160, 160)) for label in LABELS for seed in range(4)]


@pytest.fixture(scope="module", autouse=True)
def converted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMAZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.artefacts) for name in USABLE]
)
def test_drawn_cells_get_the_same_answer(name):
    entry = get_entry(name)
    backends, mine = answers(entry, "openvino", PICTURES)
    assert backends == {"openvino"}
    assert_equal_answers(mine, answers(entry, "torch", PICTURES)[1])


@pytest.mark.artefacts
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["champion8", "miniresnet"])
def test_500_real_cells_get_the_same_answer_and_map(real_data, name):
    pictures = get_benchmark("pbc-test").pictures(real_data)
    rows = np.linspace(0, len(pictures) - 1, 500).astype(int)
    images = [pictures[row][3].image() for row in rows]
    entry = get_entry(name)
    _, mine = answers(entry, "openvino", images)
    assert_equal_answers(mine, answers(entry, "torch", images)[1])
    with Runtime("cpu", "fp32", backend="openvino") as fast, Runtime("cpu", "fp32", backend="torch") as plain:
        for image in images[::25]:
            one, other = fast.explain(entry, image), plain.explain(entry, image)
            assert one.label == other.label
            assert np.abs(one.values - other.values).max() < MAP_TOLERANCE
