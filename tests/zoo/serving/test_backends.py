"""Backends: answers and maps equal torch's, converted networks are kept and made again, and failures mean torch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import backends as comparing
from tests.backends import MAP_TOLERANCE, assert_equal_answers
from tests.making import ARCHITECTURES, LABELS, draw_cell
from zoo.attribution import METHODS
from zoo.attribution.network import run
from zoo.cli import main
from zoo.entry import Entry, read_entry
from zoo.files import only_writer
from zoo.serving.backends import default_backend
from zoo.serving.backends.base import Arrays
from zoo.serving.backends.choose import serve
from zoo.serving.backends.served import ServedNetwork
from zoo.serving.backends.torch_backend import TorchBackend
from zoo.serving.models.loading import load_model
from zoo.serving.runtime import Runtime, methods_for
from zoo.sources.catalogue import get_entry

pytest.importorskip("openvino")
CELLS = [draw_cell(label, seed) for seed in range(3) for label in LABELS]


def answers(entry: Entry, backend: str) -> tuple[set[str], np.ndarray]:
    return comparing.answers(entry, backend, CELLS)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the tests of this module share, as the processes of one person do."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(tiny_zoo: Path, converted: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    monkeypatch.setenv("HEMAZOO_CACHE", str(converted))
    return read_entry(tiny_zoo / "tiny-test-efficientnet")


@pytest.fixture
def fresh(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """An entry that was never converted, with a cache folder of its own."""
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    return read_entry(tiny_zoo / "tiny-cnn60")


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in ARCHITECTURES])
def test_answers_and_maps_are_torchs(tiny_zoo, converted, monkeypatch, name):
    monkeypatch.setenv("HEMAZOO_CACHE", str(converted))
    entry = read_entry(tiny_zoo / f"tiny-{name}")
    backends, mine = answers(entry, "openvino")
    assert backends == {"openvino"}
    assert_equal_answers(mine, answers(entry, "torch")[1])
    methods = [method for method in methods_for(entry) if METHODS[method].quick or name == "test-efficientnet"]
    with (
        Runtime("cpu", "fp32", backend="openvino") as fast,
        Runtime("cpu", "fp32", backend="torch") as plain,
    ):
        for method in methods:
            one, other = (runtime.explain(entry, CELLS[1], "monocyte", method).values for runtime in (fast, plain))
            assert np.abs(one - other).max() < MAP_TOLERANCE, method
        assert fast.layers(entry) == plain.layers(entry)
        layer = fast.layers(entry)[0]
        one, other = (runtime.explain(entry, CELLS[1], "monocyte", layer=layer).values for runtime in (fast, plain))
        assert np.abs(one - other).max() < MAP_TOLERANCE
        maps = fast.concepts(entry, CELLS[1])
        assert maps.probabilities == pytest.approx(plain.concepts(entry, CELLS[1]).probabilities, abs=2e-3)


def test_a_stored_network_answers_and_explains_without_torchs(small):
    answers(small, "openvino")
    with Runtime("cpu", "fp32", backend="openvino") as runtime:
        explanation = runtime.explain(small, CELLS[0])
        runtime.measure_faithfulness(small, explanation)
        for method in ("grad-cam++", "hires-cam", "score-cam", "ablation-cam"):
            runtime.explain(small, CELLS[0], method=method)
        stored = runtime.loaded_bytes
        runtime.explain(small, CELLS[0], method="integrated-gradients")
        # only now torch's parameters are in memory too
        assert runtime.loaded_bytes > stored > 0


def test_wrong_shapes_and_other_batches_get_torchs_answer(small):
    with Runtime("cpu", "fp32", backend="openvino") as runtime:
        network = runtime.model(small).network
        for shape in ((1, 3, 96, 96), (5, 3, 48, 64)):
            batch = torch.rand(shape)
            with torch.no_grad():
                assert torch.allclose(network.run(batch).logits, network.module(batch), atol=1e-3)
        assert network.backend == "openvino"


def damage_weights(folder: Path) -> None:
    path = folder / "network.bin"
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))


@pytest.mark.parametrize(
    "damage",
    [
        damage_weights,
        lambda folder: (folder / "network.xml").unlink(),
        lambda folder: (folder / "choice.json").write_text('["foreign"]'),
        lambda folder: (folder / "reference.safetensors").write_bytes(b"cut"),
    ],
)
def test_a_damaged_network_is_converted_again(fresh, tmp_path, damage):
    _, expected = answers(fresh, "openvino")
    (folder,) = (tmp_path / "cache" / "converted").iterdir()
    damage(folder)
    (folder.parent / f".{folder.name}.killed.partial").mkdir()  # what a killed process leaves
    backends, found = answers(fresh, "openvino")
    assert backends == {"openvino"}
    assert found == pytest.approx(expected, abs=1e-6)
    assert list(folder.parent.iterdir()) == [folder]
    assert (folder / "network.xml").exists()


def test_torch_answers_while_another_process_converts(fresh, tmp_path, monkeypatch, caplog):
    answers(fresh, "openvino")
    (folder,) = (tmp_path / "cache" / "converted").iterdir()
    (folder / "choice.json").unlink()
    monkeypatch.setenv("HEMAZOO_CONVERTED_WAIT", "0.05")
    with only_writer(folder):
        assert answers(fresh, "openvino")[0] == {"torch"}
    assert "Another run is writing" in caplog.text


def test_torch_answers_where_nothing_can_be_stored(fresh, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "file"))
    assert answers(fresh, "auto")[0] == {"torch"}
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
        assert answers(fresh, "auto")[0] == {"torch"}
    monkeypatch.setenv("HEMAZOO_CONVERTED_MB", "1")
    assert answers(fresh, "auto")[0] == {"torch"}
    assert caplog.text.count("no room") == 2


def test_one_slow_turn_does_not_decide_for_a_small_network(fresh):
    """As where another process held the processor for a moment."""
    told = iter([10.0])
    network = serve(fresh, "cpu", "fp32", "auto", lambda module, batch: next(told, 1e-6))
    assert network.backend == "torch"
    again = serve(fresh, "cpu", "fp32", "auto", lambda module, batch: 10.0)
    assert again.backend == "torch", "the choice is remembered"


class Broken:
    """A backend whose library fails in the middle of the work."""

    name, bytes = "openvino", 0

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return True

    def predict(self, batch: np.ndarray) -> Arrays:
        raise RuntimeError("the library failed")


def test_torch_takes_over_from_a_library_that_fails(fresh, caplog):
    network = ServedNetwork(fresh.id, TorchBackend(lambda: load_model(fresh), torch.device("cpu")), Broken())
    batch = torch.rand(2, 3, 60, 60)
    for _ in range(2):
        assert torch.equal(network.run(batch).logits, run(network.module, batch).logits)
    assert network.backend == "torch"
    assert caplog.text.count("the library failed") == 1


def test_the_least_recently_used_networks_are_removed(tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "converted"
    sizes = {}
    for name in ("tiny-cnn60", "tiny-test-resnet"):
        answers(read_entry(tiny_zoo / name), "openvino")
        sizes = {one: sum(path.stat().st_size for path in one.iterdir()) for one in folder.iterdir()}
    monkeypatch.setenv("HEMAZOO_CONVERTED_MB", str((max(sizes.values()) + 1000) / 1e6 + 1))
    answers(read_entry(tiny_zoo / "tiny-test-efficientnet"), "openvino")
    left = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert left <= max(sizes.values()) + 1001000


def test_a_missing_library_means_torch_and_is_said_once(fresh, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for _ in range(2):
        assert answers(fresh, "openvino")[0] == {"torch"}
    assert caplog.text.count("OpenVINO is not installed") == 1


def test_torch_is_kept_for_bf16(fresh):
    with Runtime("cpu", "bf16", backend="openvino") as runtime:
        assert runtime.classify(fresh, CELLS[0]).backend == "torch"


def test_classical_heads_and_ensembles_answer_as_with_torch(converted, monkeypatch):
    monkeypatch.setenv("HEMAZOO_CACHE", str(converted))
    for name in ("cnn60_svm", "cnn60_knn"):
        entry = get_entry(name)
        backends, mine = answers(entry, "openvino")
        assert backends == {"openvino"}
        assert_equal_answers(mine, answers(entry, "torch")[1])
    with Runtime("cpu", "fp32", backend="openvino") as fast, Runtime("cpu", "fp32", backend="torch") as plain:
        assert [one.file for one in fast.neighbours(entry, CELLS[0])] == [
            one.file for one in plain.neighbours(entry, CELLS[0])
        ]


def test_commands_choose_and_name_the_backend(small, tiny_zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_ZOO", str(tiny_zoo))
    CELLS[0].save(tmp_path / "cell.png")
    command = [str(tmp_path / "cell.png"), "--model", small.id, "--json", "--precision", "fp32"]
    for backend in ("openvino", "torch"):
        assert main(["classify", *command, "--backend", backend]) == 0
        assert json.loads(capsys.readouterr().out)["backend"] == backend
    assert main(["explain", *command, "--backend", "openvino", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "openvino"
    with pytest.raises(SystemExit, match="2"):
        main(["classify", *command, "--backend", "abacus"])
    monkeypatch.setenv("HEMAZOO_BACKEND", "openvino")
    assert main(["classify", *command]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "openvino"
    monkeypatch.setenv("HEMAZOO_BACKEND", "abacus")
    assert default_backend() == "auto"
