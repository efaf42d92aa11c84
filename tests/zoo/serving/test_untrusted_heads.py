"""Heads that somebody made to do harm: each is refused with a sentence before anything of it is built."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import make_entry
from tests.zoo.serving.test_heads import KINDS, blobs
from training.fit.networks.classical import fit_head
from training.prepare.dataset import TrainingDataError
from training.recipe import Head
from zoo.entry import EntryError, read_entry
from zoo.entry.write import write_head
from zoo.serving.heads import check_head_file, read_head
from zoo.serving.models.loading import load_model
from zoo.sources.catalogue import BUILTIN

Change = Callable[["Editor"], Any]


class Editor:
    """The content of a .skops file, to be changed: its schema, and its arrays by file name."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as file:
            self.schema = json.loads(file.read("schema.json"))
            self.files = {item.filename: file.read(item) for item in file.infolist()}

    def write(self, path: Path) -> None:
        self.files["schema.json"] = json.dumps(self.schema).encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in self.files.items():
                file.writestr(name, data)

    def nodes(self, start: Any = None) -> Iterator[dict[str, Any]]:
        """All nodes, from a node or the schema."""
        place = self.schema if start is None else start
        if isinstance(place, dict):
            if "__loader__" in place:
                yield place
            place = list(place.values())
        for part in place if isinstance(place, list) else ():
            yield from self.nodes(part)

    def part(self, kind: str) -> dict[str, Any]:
        """The last node of a class that has attributes."""
        return [node for node in self.nodes() if node["__class__"] == kind and "content" in node][-1]

    def fields(self, kind: str) -> dict[str, Any]:
        return self.part(kind)["content"]["content"]

    def set(self, kind: str, name: str, value: Any) -> None:
        """Give every object of a class a plain value."""
        for node in self.nodes():
            if node["__class__"] == kind and "content" in node:
                described = node["content"]
                if name not in described["content"]:
                    described["key_types"]["content"].append(dict(described["key_types"]["content"][0]))
                described["content"][name] = scalar(value)

    def change_array(self, kind: str, name: str, change: Callable[[np.ndarray], Any]) -> None:
        """Change an array in place, or replace it by what `change` returns."""
        node = self.fields(kind)[name]
        array = np.load(io.BytesIO(self.files[node["file"]]))
        changed = change(array)
        self.files[node["file"]] = npy(array if changed is None else changed)

    def change_nodes(self, name: str, place: int, value: int) -> None:
        """Change a field of one node of a decision tree."""
        self.change_array("Tree", "nodes", lambda nodes: nodes[name].__setitem__(place, value))


def scalar(value: Any, number: int = 0) -> dict[str, Any]:
    scalar.count = number or getattr(scalar, "count", 10**6) + 1
    return {
        "__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value),
        "is_json": True, "__id__": scalar.count,
    }  # fmt: skip


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def nested(depth: int) -> dict[str, Any]:
    node = scalar(1)
    for level in range(depth):
        node = {
            "__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [node],
            "__id__": 10**9 + level,
        }  # fmt: skip
    return node


def put_itself_inside(editor: Editor) -> None:
    inside = editor.part("Pipeline")["content"]
    editor.fields("Pipeline")["verbose"] = {**inside, "content": {}, "__id__": inside["__id__"]}


def give_two_meanings(editor: Editor) -> None:
    first = editor.fields("PCA")["tol"]
    editor.fields("PCA")["iterated_power"] = scalar("other", first["__id__"])


def add_tree_elsewhere(editor: Editor) -> None:
    tree = json.loads(json.dumps(editor.part("Tree")))
    editor.fields("PCA")["random_state"] = tree


def set_tree_outputs(editor: Editor) -> None:
    editor.part("Tree")["__reduce__"]["args"]["content"][2] = scalar(10**9)


def set_tree_classes(editor: Editor) -> None:
    editor.files[editor.part("Tree")["__reduce__"]["args"]["content"][1]["file"]] = npy(np.array([10**12]))


def replace_array(content: bytes) -> Change:
    def change(editor: Editor) -> None:
        editor.files[editor.fields("PCA")["mean_"]["file"]] = content

    return change


def odd_type(editor: Editor) -> None:
    editor.fields("PCA")["mean_"]["type"] = "json"


HEADER = b"\x93NUMPY\x01\x00\x76\x00%-117s\n"
REFUSED: dict[str, tuple[str, Change, str]] = {
    # the graph
    "a node in itself": ("knn", put_itself_inside, "contains itself"),
    "two meanings of one id": ("knn", give_two_meanings, "two nodes of one id"),
    "id 0": ("knn", lambda e: e.part("PCA").update(__id__=0), "valid id"),
    "negative id": ("knn", lambda e: e.part("PCA").update(__id__=-5), "valid id"),
    "id of 70 bits": ("knn", lambda e: e.part("PCA").update(__id__=2**70), "valid id"),
    "id of letters": ("knn", lambda e: e.part("PCA").update(__id__="a"), "valid id"),
    "id missing": ("knn", lambda e: e.part("PCA").pop("__id__"), "valid id"),
    "cached node": ("knn", lambda e: e.part("PCA").update(__loader__="CachedNode"), "not loaded"),
    "function": ("knn", lambda e: e.part("PCA").update(__loader__="FunctionNode"), "not loaded"),
    "method": ("knn", lambda e: e.part("PCA").update(__loader__="MethodNode"), "not loaded"),
    "loader no text": ("knn", lambda e: e.part("PCA").update(__loader__=["ObjectNode"]), "not loaded"),
    "another class": ("knn", lambda e: e.part("PCA").update(__class__="FastICA"), "FastICA, which is not loaded"),
    "class of the system": ("knn", lambda e: e.part("PCA").update(__module__="os"), "not loaded"),
    "protocol of old": ("knn", lambda e: e.schema.update(protocol=0), "another protocol"),
    "too deep": ("knn", lambda e: e.fields("PCA").update(tol=nested(90)), "deep"),
    "far too deep": ("knn", lambda e: e.fields("PCA").update(tol=nested(300)), "deep"),
    "keys undescribed": ("knn", lambda e: e.part("PCA")["content"]["key_types"]["content"].pop(), "keys"),
    "text without end": ("knn", lambda e: e.set("PCA", "tol", "a" * 5000), "5,002 letters"),
    "number not finite": ("knn", lambda e: e.set("PCA", "tol", float("inf")), "no finite number"),
    "list as a number": ("knn", lambda e: e.set("PCA", "tol", [1]), "no finite number"),
    "schema a list": ("knn", lambda e: setattr(e, "schema", [1]), "protocol"),
    # arrays
    "array missing": ("knn", lambda e: e.fields("PCA")["mean_"].update(file="no.npy"), "not in it"),
    "array is the schema": ("knn", lambda e: e.fields("PCA")["mean_"].update(file="schema.json"), "no array"),
    "array of objects": ("knn", odd_type, "array of objects"),
    "array a pickle": ("knn", replace_array(b"\x80\x04K\x01."), "no array"),
    "array of pickles": ("knn", replace_array(npy(np.array([{}]))), "no array"),
    "array an npz": ("knn", replace_array(b"PK\x03\x04"), "no array"),
    "array header of code": ("knn", replace_array(HEADER % b"{'descr': exit(), 'shape': ()}"), "no array"),
    "array claims more": (
        "knn",
        replace_array(HEADER % b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, ), }" + bytes(8)),
        "no array|claims a size",
    ),
    "array not finite": ("knn", lambda e: e.change_array("PCA", "mean_", lambda a: a.fill(np.nan)), "no finite"),
    "array of another shape": ("knn", lambda e: e.change_array("PCA", "mean_", lambda a: a[:5]), "shape"),
    # trees
    "tree child outside": ("forest", lambda e: e.change_nodes("left_child", 0, 10**6), "outside of itself"),
    "tree child before the first": ("forest", lambda e: e.change_nodes("right_child", 0, -5), "outside of itself"),
    "tree child is its parent": ("forest", lambda e: e.change_nodes("left_child", 0, 0), "outside of itself"),
    "tree of far features": ("forest", lambda e: e.change_nodes("feature", 0, 10**6), "outside of itself"),
    "tree of negative features": ("forest", lambda e: e.change_nodes("feature", 0, -9), "outside of itself"),
    "tree of other nodes": ("forest", lambda e: e.change_array("Tree", "nodes", lambda a: np.zeros(len(a))), "nodes"),
    "tree counts more nodes": ("forest", lambda e: e.set("Tree", "node_count", 10**9), "node_count"),
    "tree of few values": ("forest", lambda e: e.change_array("Tree", "values", lambda a: a[:1]), "values"),
    "tree of a billion outputs": ("forest", set_tree_outputs, "arguments"),
    "tree of a trillion classes": ("forest", set_tree_classes, "arguments"),
    "tree where none is": ("forest", add_tree_elsewhere, "random_state"),
    "forest of a billion classes": (
        "forest", lambda e: e.set("RandomForestClassifier", "n_classes_", 10**9), "n_classes_",
    ),
    "forest of many outputs": ("forest", lambda e: e.set("RandomForestClassifier", "n_outputs_", 9), "n_outputs_"),
    "forest of a million threads": ("forest", lambda e: e.set("RandomForestClassifier", "n_jobs", 10**6), "n_jobs"),
    # support vector machines
    "machine counts more vectors": (
        "svm", lambda e: e.change_array("SVC", "_n_support", lambda a: a.fill(10**6)), "_n_support",
    ),
    "machine of few coefficients": ("svm", lambda e: e.change_array("SVC", "_dual_coef_", lambda a: a[:, :1]), "shape"),
    "machine of few intercepts": ("svm", lambda e: e.change_array("SVC", "_intercept_", lambda a: a[:1]), "shape"),
    "machine of narrow vectors": (
        "svm", lambda e: e.change_array("SVC", "support_vectors_", lambda a: a[:, :1]), "shape",
    ),
    "machine of a stored kernel": ("svm", lambda e: e.set("SVC", "kernel", "precomputed"), "kernel"),
    "machine of another kind": ("svm", lambda e: e.set("SVC", "_impl", "one_class"), "_impl is not loaded"),
    "machine of a method": ("svm", lambda e: e.set("SVC", "predict", "x"), "predict is not loaded"),
    # neighbours
    "neighbours of other classes": (
        "knn", lambda e: e.change_array("KNeighborsClassifier", "_y", lambda a: a.fill(10**6)), "_y",
    ),
    "neighbours of narrow vectors": (
        "knn", lambda e: e.change_array("KNeighborsClassifier", "_fit_X", lambda a: a[:, :1].copy()), "_fit_X",
    ),
    "more neighbours than pictures": (
        "knn", lambda e: e.set("KNeighborsClassifier", "n_neighbors", 10**9), "n_neighbors",
    ),
    "neighbours by a stored matrix": (
        "knn", lambda e: e.set("KNeighborsClassifier", "metric", "precomputed"), "metric",
    ),
    # the whole
    "cache in a folder": ("knn", lambda e: e.set("Pipeline", "memory", "/tmp/cache"), "memory"),
    "classes not declared": (
        "knn", lambda e: e.change_array("KNeighborsClassifier", "classes_", lambda a: a + 1), "no classifier for 4",
    ),
    "classes of words": (
        "knn",
        lambda e: e.change_array("KNeighborsClassifier", "classes_", lambda a: a.astype("U9")),
        "no array",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a kind, with a head that training wrote."""
    place, (vectors, labels) = tmp_path_factory.mktemp("heads"), blobs()
    for kind, options in KINDS.items():
        (place / kind).mkdir()
        write_head(place / kind, fit_head(Head(kind=kind, features=5, options=options), vectors, labels, 0))
    return place


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_head_is_refused(heads, tmp_path, name):
    kind, change, said = REFUSED[name]
    editor = Editor(heads / kind / "head.skops")
    change(editor)
    editor.write(tmp_path / "head.skops")
    with pytest.raises(EntryError, match=said) as refused:
        check_head_file(tmp_path / "head.skops", 4)
    assert str(refused.value).endswith(".") and len(str(refused.value)) < 300
    with pytest.raises(EntryError, match=said):
        read_head(tmp_path / "head.skops", 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_head_is_loaded(heads, tmp_path, kind):
    Editor(heads / kind / "head.skops").write(tmp_path / "head.skops")
    assert check_head_file(tmp_path / "head.skops", 4) == 128
    assert read_head(tmp_path / "head.skops", 4, 128).predict_proba(blobs()[0]).shape == (120, 4)


def test_a_head_of_other_vectors_than_the_network_gives_is_refused(tmp_path):
    folder, (vectors, labels) = make_entry(tmp_path / "wide", "cnn60", head="head.skops"), blobs(width=90)
    write_head(folder, fit_head(Head(kind="knn", features=5, options=KINDS["knn"]), vectors, labels, 0))
    with pytest.raises(EntryError, match="vectors of 90 numbers; the entry's network gives 128"):
        load_model(read_entry(folder))


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("schema.json", "{}")


def repacked(path: Path) -> None:
    data = Editor(path).files
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        for name, content in data.items():
            file.writestr(name, content)


def many(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        for number in range(20_001):
            file.writestr(f"{number}", b"")


def squeezed(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("a.npy", bytes(150_000_000))


def lying(path: Path) -> None:
    """The first member claims half its size, in the directory at the end of the file."""
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    size = int.from_bytes(data[place : place + 4], "little")
    data[place : place + 4] = (size // 2).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (twice, "two files of one name"),
        (repacked, "another method"),
        (many, "files; at most 20,000"),
        (squeezed, "more than 200 for one"),
        (lying, "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "damaged"),
    ],
    ids=["one name twice", "bzip2", "many files", "ratio", "size", "cut"],
)
def test_a_hostile_zip_is_refused(heads, tmp_path, change, said):
    path = tmp_path / "head.skops"
    path.write_bytes((heads / "knn" / "head.skops").read_bytes())
    change(path)
    with pytest.raises(EntryError, match=said):
        read_head(path, 4)


def test_the_owner_sets_the_limit_of_a_head(monkeypatch):
    monkeypatch.setenv("HEMAZOO_HEAD_MB", "1")
    with pytest.raises(EntryError, match="at most 1,000,000 are loaded"):
        read_head(BUILTIN / "pixels_forest" / "head.skops", 4)


def test_training_refuses_options_whose_head_would_not_be_loaded():
    head = Head(kind="knn", features=5, options={"algorithm": "kd_tree"})
    with pytest.raises(TrainingDataError, match=r"\[head\]\.options"):
        fit_head(head, *blobs(), 0)
