"""Classical heads and ensembles: they classify like any other entry, or give the reason why not."""

from __future__ import annotations

import collections
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skops.io
from PIL import Image, ImageDraw
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tests.making import LABELS, draw_cell, make_config, make_entry
from training.fit.networks.classical import fit_head
from training.recipe import Head
from zoo.attribution import ExplanationError
from zoo.cli import main
from zoo.entry import BrokenEntry, EntryError, read_entry
from zoo.entry.write import write_head
from zoo.files import write_json
from zoo.scores.acceptance import ACCEPTED, FOR_REVIEW
from zoo.scores.sample.samples import samples
from zoo.serving.heads import read_head
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.requests import Answer, Ticket, mean_answer
from zoo.serving.results import with_sample
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import FolderSource, get_entry, list_entries

KINDS = {
    "knn": {"n_neighbors": 1, "metric": "euclidean"},
    "svm": {"kernel": "poly", "degree": 3},
    "forest": {"n_estimators": 20, "bootstrap": True},
}

ALIKE = samples()["alike"]
GRANULES = ("eosinophil", "neutrophil", "ig")


def blobs(count=120, width=128):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 4
    return (random.normal(0, 1, (count, width)) + 2 * labels[:, None]).astype(np.float32), labels


def make_headed(folder, kind):
    """A cnn60 whose last layer is a classical classifier."""
    make_entry(folder, "cnn60", head="head.skops")
    vectors, labels = blobs()
    write_head(folder, fit_head(Head(kind=kind, features=5, options=KINDS[kind]), vectors, labels, 0))
    return folder


@pytest.fixture(params=KINDS)
def headed(request, tmp_path):
    return read_entry(make_headed(tmp_path / f"tiny-{request.param}", request.param))


def test_a_classical_head_classifies_and_refuses_gradient_methods(headed):
    assert headed.usable
    with Runtime("cpu") as runtime:
        found = runtime.classify(headed, draw_cell("monocyte", 1))
        assert set(found.probabilities) == set(LABELS)
        assert sum(found.probabilities.values()) == pytest.approx(1)
        with pytest.raises(ExplanationError, match="no gradients"):
            runtime.explain(headed, draw_cell("monocyte", 1), method="grad-cam")
        assert runtime.explain(headed, draw_cell("monocyte", 1)).method == "occlusion"
        # and goes on working
        assert runtime.classify(headed, draw_cell("monocyte", 1)).probabilities == found.probabilities


def test_a_stored_head_answers_as_the_fitted_one(tmp_path):
    vectors, labels = blobs()
    for kind, options in KINDS.items():
        fitted = fit_head(Head(kind=kind, features=5, options=options), vectors, labels, 0)
        write_head(tmp_path, fitted)
        assert (tmp_path / "head.skops").stat().st_size < 2_000_000
        read = read_head(tmp_path / "head.skops", 4)
        assert np.allclose(read.predict_proba(vectors), fitted.predict_proba(vectors))
        assert fitted.score(vectors, labels) > 0.8


def test_command_line_classifies_and_explains(headed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEMAZOO_ZOO", str(headed.folder))
    draw_cell("monocyte", 1).save(tmp_path / "cell.png")
    assert main(["classify", str(tmp_path / "cell.png"), "--model", headed.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in LABELS
    command = ["explain", str(tmp_path / "cell.png"), "--model", headed.id, "--out", str(tmp_path / "x")]
    assert main([*command, "--method", "grad-cam"]) == 1
    assert "no gradients" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "occlusion"


def forest():
    vectors, labels = blobs(40)
    return RandomForestClassifier(3, random_state=0).fit(vectors, labels)


def broken_tree():
    found = forest()
    tree = found.estimators_[0].tree_
    tree.children_left[0] = tree.node_count + 10
    return found


BROKEN = {
    "not a zip": (lambda path: path.write_bytes(b"nothing"), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "damaged"),
    "empty zip": (lambda path: zipfile.ZipFile(path, "w").close(), "damaged"),
    "foreign type": (lambda path: skops.io.dump(collections.Counter("ab"), path), "collections.Counter"),
    "function": (lambda path: skops.io.dump({"f": draw_cell}, path), "not loaded"),
    "no classifier": (lambda path: write_head(path.parent, StandardScaler().fit(blobs()[0])), "no classifier"),
    "a number": (lambda path: skops.io.dump(3, path), "no classifier"),
    "too many classes": (
        lambda path: write_head(
            path.parent, KNeighborsClassifier(algorithm="brute").fit(blobs()[0][:40], np.arange(40) % 9)
        ),
        "no classifier for 4",
    ),
    "words": (
        lambda path: write_head(
            path.parent, KNeighborsClassifier(algorithm="brute").fit(blobs()[0], np.array(LABELS)[blobs()[1]])
        ),
        "no array of numbers",
    ),
    "tree": (lambda path: write_head(path.parent, broken_tree()), "points outside of itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_refuses_an_untrusted_head(tmp_path, name):
    make, said = BROKEN[name]
    folder = make_entry(tmp_path / "bad", "cnn60", head="head.skops")
    make(folder / "head.skops")
    with pytest.raises(EntryError, match=said):
        read_head(folder / "head.skops", 4)
    with Runtime("cpu") as runtime, pytest.raises(EntryError, match=said):
        runtime.classify(read_entry(folder), draw_cell("monocyte", 1))


def test_refuses_a_decompression_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "head.skops", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", b" " * 300_000_000)
    assert (tmp_path / "head.skops").stat().st_size < 1_000_000
    with pytest.raises(EntryError, match="at most 200,000,000"):
        read_head(tmp_path / "head.skops", 4)


def test_lists_an_entry_without_its_head_as_broken(tmp_path):
    folder = make_entry(tmp_path / "bad", "cnn60", head="head.skops")
    entry = read_entry(folder)
    assert isinstance(entry, BrokenEntry)
    assert "head.skops cannot be read" in entry.reason


def ensemble(folder, members, labels=LABELS, **ours):
    folder.mkdir()
    config = make_config("cnn60", labels, members=members, **ours) | {"architecture": "ensemble"}
    write_json(folder / "config.json", config)
    return folder


@pytest.fixture
def together(tmp_path):
    """Two networks of unlike kind and label order, and their ensemble."""
    make_entry(tmp_path / "one", "cnn60", 1)
    make_entry(tmp_path / "two", "test_resnet", 2, LABELS[::-1])
    ensemble(tmp_path / "both", ["one", "two"], member_weights=[0.25, 0.75])
    return tmp_path


def found(place, name="both"):
    return next(entry for entry in list_entries([FolderSource(place, "here")]) if entry.id == name)


def test_an_ensemble_averages_by_label(together):
    entry = found(together)
    assert entry.usable
    assert entry.weights.parameters == sum(member.weights.parameters for member in entry.members)
    with Runtime("cpu", "fp32") as runtime:
        for cell in (draw_cell(label, 3) for label in LABELS):
            parts = [runtime.classify(member, cell).probabilities for member in entry.members]
            mixed = runtime.classify(entry, cell)
            for label in LABELS:
                expected = 0.25 * parts[0][label] + 0.75 * parts[1][label]
                assert mixed.probabilities[label] == pytest.approx(expected, abs=1e-6)
        explained = runtime.explain(entry, cell)
        assert explained.label == mixed.label
        assert explained.values.max() == pytest.approx(1)
        maps = [runtime.explain(member, cell, "monocyte").values for member in entry.members]
        whole = runtime.explain(entry, cell, "monocyte").values
        expected = 0.25 * maps[0] + 0.75 * maps[1]
        assert np.allclose(whole, expected / expected.max(), atol=1e-5)


def test_a_geometric_mean_lets_a_member_exclude_a_class(together):
    ensemble(together / "geometric", ["one", "two"], member_weights=[0.25, 0.75], member_mean="geometric")
    entry = found(together, "geometric")
    with Runtime("cpu", "fp32") as runtime:
        for cell in (draw_cell(label, 3) for label in LABELS):
            one, two = (runtime.classify(member, cell).probabilities for member in entry.members)
            expected = {label: one[label] ** 0.25 * two[label] ** 0.75 for label in LABELS}
            mixed = runtime.classify(entry, cell).probabilities
            assert mixed == pytest.approx({k: v / sum(expected.values()) for k, v in expected.items()}, abs=1e-5)


def test_the_deciding_member_alone_decides_what_is_accepted(together):
    """Limits lie on either side of that member's probability of the answer; the answer stays the mean's."""
    options = {"member_weights": [0.25, 0.75], "deciding_member": "one"}
    folder, cell = ensemble(together / "decided", ["one", "two"], **options), draw_cell("monocyte", 3)
    with Runtime("cpu", "fp32") as runtime:
        mixed = runtime.classify(found(together, "both"), cell, ALIKE)
        own = runtime.classify(found(together, "one"), cell, ALIKE).probabilities[mixed.label]
        assert abs(own - mixed.confidence) > 0.002
        for limit, decision in ((own - 0.001, ACCEPTED), (own + 0.001, FOR_REVIEW)):
            limits = {"confidence": 1.0, "network": 0.0, "distance": 2.0, "classes": {mixed.label: limit}}
            write_json(folder / "evaluation.json", {"acceptance": {"limits": limits, "temperature": 1.0}})
            entry = found(together, "decided")
            answer = runtime.classify(entry, cell, ALIKE)
            assert answer.probabilities == pytest.approx(mixed.probabilities, abs=1e-6)
            assert answer.acceptance.decision == decision
            assert with_sample(entry, answer, ALIKE).acceptance == answer.acceptance


@pytest.mark.parametrize(("distances", "expected"), [((0.4, 1.7), 1.7), ((1.7, 0.4), 1.7), ((0.4, None), None)])
def test_an_ensemble_is_as_far_as_its_farthest_member(distances, expected):
    tickets = []
    for distance in distances:
        tickets.append(Ticket())
        tickets[-1].set_result(Answer(np.array([0.5, 0.5]), None, 0.1, distance, "torch"))
    assert mean_answer(tickets, [0.9, 0.1]).result().distance == expected


def test_members_of_weight_zero_are_not_run(together):
    ensemble(together / "alone", ["one", "two"], member_weights=[0.0, 1.0])
    entry, cell = found(together, "alone"), draw_cell("monocyte", 4)
    loaded: list[str] = []

    def counted(one, device, precision):
        loaded.append(one.id)
        return LoadedModel(one, device, precision)

    with Runtime("cpu", "fp32", loader=counted) as runtime:
        runtime.load(entry)
        answer, shown = runtime.classify(entry, cell), runtime.explain(entry, cell, "monocyte")
        assert loaded == ["two"]
        only = entry.members[1]
        assert answer.probabilities == pytest.approx(runtime.classify(only, cell).probabilities)
        assert np.allclose(shown.values, runtime.explain(only, cell, "monocyte").values, atol=1e-5)


def test_an_ensemble_with_fewer_classes_merges_and_drops_the_others(together):
    """Of a model of five kinds: two counted as one, one left out, the rest scaled to 1."""
    five = [*LABELS, "ig"]
    make_entry(together / "five", "test_resnet", 5, five)
    ensemble(together / "fewer", ["five"], ["lymphocyte", "granulocyte"], same=dict.fromkeys(GRANULES, "granulocyte"))
    entry = found(together, "fewer")
    assert entry.usable and entry.labels == ["lymphocyte", "granulocyte"]
    with Runtime("cpu", "fp32") as runtime:
        cell = draw_cell("eosinophil", 3)
        whole = runtime.classify(entry.members[0], cell).network
        mixed = runtime.classify(entry, cell)
        granules = sum(whole[label] for label in GRANULES)
        assert mixed.network["granulocyte"] == pytest.approx(granules / (granules + whole["lymphocyte"]), abs=1e-6)
        for label, asked in (("granulocyte", "eosinophil"), ("lymphocyte", "lymphocyte")):
            mine = runtime.explain(entry, cell, label).values
            assert np.allclose(mine, runtime.explain(entry.members[0], cell, asked).values, atol=1e-5)
    ensemble(together / "more", ["five"], ["lymphocyte", "basophil"], same={})
    assert "names other classes" in found(together, "more").reason


def test_ensemble_and_members_share_queues(together):
    """Many askers of the ensemble and of its members at once get what one asker gets."""
    entry = found(together)
    cells = [draw_cell(label, seed) for seed in range(6) for label in LABELS]
    with Runtime("cpu", "fp32") as runtime:
        alone = [runtime.classify(entry, cell).probabilities for cell in cells]
        with ThreadPoolExecutor(8) as pool:
            others = [pool.submit(runtime.classify, entry.members[n % 2], cell) for n, cell in enumerate(cells)]
            together = list(pool.map(lambda cell: runtime.classify(entry, cell).probabilities, cells))
            assert all(other.result() for other in others)
        assert sorted(runtime.loaded_models) == ["one", "two"]  # the members', and none of its own
        assert runtime.waiting() == 0
    for one, many in zip(alone, together, strict=True):
        assert one == pytest.approx(many, abs=1e-5)


def test_an_ensemble_gives_its_members_error(together):
    entry = found(together)
    path = together / "two" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    (together / "two" / "config.json").write_text(
        (together / "two" / "config.json").read_text().replace("test_resnet", "test_efficientnet")
    )
    with Runtime("cpu") as runtime, pytest.raises(EntryError, match="two cannot be loaded"):
        runtime.classify(found(together), draw_cell("monocyte", 1))
    assert entry.usable


def test_an_unusable_ensemble_has_a_reason(together):
    ensemble(together / "missing", ["one", "gone"])
    ensemble(together / "nested", ["one", "both"])
    make_entry(together / "other", "cnn60", labels=["a", "b"])
    ensemble(together / "foreign", ["one", "other"])
    for name, said in (
        ("missing", "Its member gone is not in the zoo"),
        ("nested", "Its member both cannot be used"),
        ("foreign", "Its member other names other classes"),
    ):
        entry = found(together, name)
        assert not entry.usable
        assert said in entry.reason
        with pytest.raises(EntryError, match=said):
            get_entry(name, list_entries([FolderSource(together, "here")]))


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"members": ["one", "one"]}, "named twice"),
        ({"members": []}, "at least 1"),
        ({"members": ["one"]}, "needs merged labels"),
        ({"members": ["one", "../two"]}, "pattern"),
        ({"members": ["one", "two"], "member_weights": [1.0]}, "not as many"),
        ({"members": ["one", "two"], "member_weights": [0.5, 0.9]}, "add up to 1"),
        ({"members": ["one", "two"], "member_weights": [-0.5, 1.5]}, "greater than or equal"),
    ],
)
def test_lists_a_wrong_ensemble_as_broken(together, ours, said):
    write_json(together / "both" / "config.json", make_config("cnn60", **ours))
    entry = found(together)
    assert isinstance(entry, BrokenEntry)
    assert said in entry.reason


def test_map_of_a_crop_lies_on_the_crop(tmp_path):
    """A purple cell away from the middle: the map is nothing outside of its crop."""
    image = Image.new("RGB", (200, 160), (235, 225, 215))
    ImageDraw.Draw(image).ellipse([20, 30, 90, 100], fill=(130, 120, 210))
    entry = read_entry(make_entry(tmp_path / "crop", "cnn60", 1, crop="cell"))
    whole = read_entry(make_entry(tmp_path / "whole", "cnn60", 1))
    with Runtime("cpu", "fp32") as runtime:
        maps = [runtime.explain(entry, image, label).values for label in LABELS]
        assert runtime.classify(entry, image).probabilities != runtime.classify(whole, image).probabilities
    assert any(values.any() for values in maps)
    for values in maps:
        assert values.shape == (160, 200)
        assert not values[:, 115:].any()
        assert not values[125:].any()
