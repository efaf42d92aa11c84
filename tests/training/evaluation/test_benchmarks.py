"""`python -m training evaluate`: predictions and scores are written into entries, never from leaked pictures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.making import LABELS, draw_cell, make_entry, register_benchmark, register_dataset
from training.cli import main
from training.evaluation import benchmarks as evaluate
from zoo import benchmarks
from zoo.benchmarks import corruptions
from zoo.entry import read_entry, read_network_predictions, read_predictions
from zoo.files import write_json
from zoo.serving.runtime import Runtime


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with one benchmark, and a cache of its own."""
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    place, registry = tmp_path / "data" / "elsewhere", tmp_path / "registry"
    rows = ["file,cell,label"]
    for label in LABELS:
        (place / label).mkdir(parents=True)
        for seed in range(5):
            draw_cell(label, seed).save(place / label / f"{seed}.png")
            rows.append(f"{label}/{seed}.png,{label}-{seed},{label}")
    register_dataset(registry, "elsewhere")
    register_benchmark(registry, "drawn-far", "elsewhere", "\n".join(rows) + "\n")
    corrupted = 'corruptions = "blood"\n'
    register_benchmark(registry, "drawn-far-corrupted", "elsewhere", "\n".join(rows[::6]) + "\n", corrupted)
    monkeypatch.setenv("HEMAZOO_REGISTRY", str(registry))
    return tmp_path / "data"


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu"])


def test_scores_are_written_into_several_entries(root, tmp_path, capsys):
    entries = [make_entry(tmp_path / "zoo" / name, name) for name in ("cnn60", "test_resnet")]
    assert run(*entries, "--benchmark", "drawn-far", "--data", root, "--speed", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in told] == ["cnn60", "test_resnet"]
    assert all(one["speed"]["images_per_second"] > 0 and one["speed"]["device"] for one in told)
    for folder, one in zip(entries, told, strict=True):
        entry = read_entry(folder)
        table = read_predictions(entry, "drawn-far")
        record = entry.evaluation.benchmarks["drawn-far"]
        assert len(table) == record.n_images == record.n_cells == 20
        assert record.split_hash == benchmarks.get_benchmark("drawn-far").hash
        right = np.array(LABELS)[table[LABELS].to_numpy().argmax(1)] == table["label"]
        assert one["benchmarks"]["drawn-far"]["accuracy"]["value"] == pytest.approx(right.mean())
    # a scored entry is not scored again
    before = (entries[0] / "evaluation.json").stat().st_mtime_ns
    assert run(entries[0], "--benchmark", "drawn-far", "--data", root) == 0
    assert (entries[0] / "evaluation.json").stat().st_mtime_ns == before


class InterruptedRuntime(Runtime):
    """Counts the pictures it gets, and raises KeyboardInterrupt after a number of them."""

    def __init__(self, limit: int) -> None:
        super().__init__("cpu")
        self.limit, self.pictures = limit, []

    def submit(self, entry, image, *arguments, **options):
        if len(self.pictures) >= self.limit:
            raise KeyboardInterrupt
        self.pictures.append(image.tobytes())
        return super().submit(entry, image, *arguments, **options)


def test_interrupted_evaluation_is_resumed(root, tmp_path):
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    whole = make_entry(tmp_path / "whole" / "tiny", "test_resnet")
    benchmark = benchmarks.get_benchmark("drawn-far")
    pictures, lines = benchmark.pictures(root), []
    with InterruptedRuntime(8) as runtime:
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate([read_entry(entry)], benchmark, pictures, runtime, lines.append, chunk_size=8)
        assert len(runtime.pictures) == 8 and not (entry / "evaluation.json").exists()
        runtime.limit = 100
        assert not evaluate.evaluate([read_entry(entry)], benchmark, pictures, runtime, lines.append, chunk_size=8)
        assert len(runtime.pictures) == len(set(runtime.pictures)) == 20  # none twice
    assert "balanced accuracy" in lines[-1]
    shutil.rmtree(tmp_path / "cache")
    assert run(whole, "--benchmark", "drawn-far", "--data", root) == 0
    one, other = (read_predictions(read_entry(place), "drawn-far") for place in (entry, whole))
    assert np.allclose(one[LABELS], other[LABELS], atol=2e-3)
    assert one.drop(columns=LABELS).equals(other.drop(columns=LABELS))


def test_results_of_other_commands_are_kept(root, tmp_path):
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    share = {"value": 0.9, "low": 0.8, "high": 1.0}
    maps = {"bccd-frames": {"pointing": share, "energy": share, "chance": 0.2, "images": 9}, "sanity": {"100 %": 0.1}}
    path = entry / "evaluation.json"
    path.write_text(json.dumps({"schema_version": 1, "explanations": {"grad-cam": maps}}), encoding="utf-8")
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    found = written["explanations"]["grad-cam"]
    assert {name: found[name] for name in maps} == maps
    assert set(found) <= set(maps) | {"road", "deletion", "insertion"}
    assert "gate" not in written and "drawn-far" in written["benchmarks"]


def test_other_preprocessing_does_not_reuse_cached_predictions(root, tmp_path):
    """Cached predictions depend on the weights and on the preprocessing."""
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 0
    before = read_predictions(read_entry(entry), "drawn-far")
    config = json.loads((entry / "config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 0.4
    config["pretrained_cfg"]["crop_mode"] = "center"
    write_json(entry / "config.json", config)
    (entry / "evaluation.json").unlink()
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 0
    after = read_predictions(read_entry(entry), "drawn-far")
    assert np.abs(after[LABELS].to_numpy() - before[LABELS].to_numpy()).max() > 1e-3


def test_ensemble_on_corrupted_pictures_is_the_mean_of_its_members(root, tmp_path, capsys):
    zoo = tmp_path / "zoo"
    members = [make_entry(zoo / name, "test_resnet", seed) for seed, name in enumerate(("one", "two"))]
    both = make_entry(zoo / "both", "test_resnet", members=["one", "two"], member_weights=[0.75, 0.25])
    (both / "model.safetensors").unlink()
    assert run(*members, both, "--benchmark", "drawn-far-corrupted", "--data", root) == 0
    tables = [read_predictions(read_entry(place), "drawn-far-corrupted") for place in (*members, both)]
    assert len(tables[0]) == 3 * len(corruptions.SETS[corruptions.BLOOD])
    mixed = 0.75 * tables[0][LABELS] + 0.25 * tables[1][LABELS]
    assert np.allclose(tables[2][LABELS], mixed, atol=2e-3)
    record = read_entry(both).evaluation.benchmarks["drawn-far-corrupted"]
    assert {"corruption_error", "corruption_error_alexnet", "ece"} <= set(record.metrics)
    assert record.n_cells == 3
    assert "corruption error" in capsys.readouterr().err


def test_a_geometric_ensemble_is_scored_as_it_answers(root, tmp_path):
    zoo = tmp_path / "zoo"
    members = [make_entry(zoo / name, "test_resnet", seed) for seed, name in enumerate(("one", "two"))]
    options = {"members": ["one", "two"], "member_weights": [0.75, 0.25], "member_mean": "geometric"}
    both = make_entry(zoo / "both", "test_resnet", **options)
    (both / "model.safetensors").unlink()
    assert run(*members, both, "--benchmark", "drawn-far", "--data", root) == 0
    one, two, mixed = (read_network_predictions(read_entry(place), "drawn-far")[LABELS] for place in (*members, both))
    expected = one.astype(float) ** 0.75 * two.astype(float) ** 0.25
    assert np.allclose(mixed, expected.div(expected.sum(axis=1), axis=0), atol=2e-3)


def test_own_folder_is_a_benchmark(root, tmp_path, capsys):
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    own = tmp_path / "mine"
    for label in LABELS[:2]:
        (own / label.upper()).mkdir(parents=True)
        draw_cell(label, 9).save(own / label.upper() / "cell.png")
    assert run(entry, "--own", own, "--name", "my-lab") == 0
    record = read_entry(entry).evaluation.benchmarks["my-lab"]
    assert record.labels == LABELS[:2] and record.n_images == 2
    (own / "blast").mkdir()
    draw_cell(LABELS[0], 1).save(own / "blast" / "cell.png")
    assert run(entry, "--own", own) == 1
    assert "classes that the models do not know: blast" in capsys.readouterr().err
    assert run(entry, "--own", own, "--name", "drawn-far") == 2
    assert "published benchmark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "scheme", "leaky", "files", "allowed"),
    [
        ("far", "grouped", False, "same", True),  # another laboratory
        ("elsewhere", "grouped", False, "same", True),  # its own test pictures
        ("elsewhere", "grouped", False, "other", False),
        ("elsewhere", "random", True, "same", False),
    ],
)
def test_entry_is_not_scored_on_pictures_it_may_have_seen(root, tmp_path, capsys, data, scheme, leaky, files, allowed):
    recipe = {"data": {"name": data, "split": scheme}}
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet", recipe=recipe)
    tested = benchmarks.get_benchmark("drawn-far").rows.copy()
    if files == "other":
        tested["file"] = "else/" + tested["file"]
    evaluate.add_to_entry(
        read_entry(entry), benchmarks.get_benchmark("drawn-far"), tested.assign(**dict.fromkeys(LABELS, 0.25)), "cpu"
    )
    written = json.loads((entry / "evaluation.json").read_text())
    record = written["benchmarks"].pop("drawn-far") | {"leaky": leaky}
    write_json(entry / "evaluation.json", written | {"benchmarks": {"own-test": record}})
    (entry / "predictions" / "drawn-far.parquet").rename(entry / "predictions" / "own-test.parquet")
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == (0 if allowed else 1)
    assert ("drawn-far" in read_entry(entry).evaluation.benchmarks) == allowed
    assert ("may have seen" in capsys.readouterr().err) != allowed


def test_wrong_usage_is_an_error_message(root, tmp_path, capsys):
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet", labels=LABELS[:3])
    assert run(entry) == 2
    assert "--data" in capsys.readouterr().err
    assert run(entry, "--benchmark", "drawn-near", "--data", root) == 2
    assert "no benchmark drawn-near" in capsys.readouterr().err
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 1
    assert "cannot name neutrophil" in capsys.readouterr().err
    (root / "elsewhere" / "monocyte" / "3.png").unlink()
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 1
    assert "1 of 20 pictures" in capsys.readouterr().err
    (root / "elsewhere" / "monocyte" / "3.png").write_bytes(b"no picture")
    other = make_entry(tmp_path / "zoo" / "other", "test_resnet")
    assert run(other, "--benchmark", "drawn-far", "--data", root) == 1
    assert "monocyte/3.png cannot be read" in capsys.readouterr().err
    assert not (other / "evaluation.json").exists()


def test_scores_are_recomputed_from_stored_predictions(root, tmp_path):
    entry = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    assert run(entry, "--benchmark", "drawn-far", "--data", root) == 0
    before = json.loads((entry / "evaluation.json").read_text())
    broken = json.loads((entry / "evaluation.json").read_text())
    broken["benchmarks"]["drawn-far"]["metrics"] = {"accuracy": {"value": 0.5}}
    write_json(entry / "evaluation.json", broken)
    (entry / "model.safetensors").unlink()  # not needed for that
    assert run(entry, "--rescore") == 0
    assert json.loads((entry / "evaluation.json").read_text()) == before
