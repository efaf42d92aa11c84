"""The zoo on the Hub: listed, chosen, pinned, and failures of the Hub, the network and the disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from tests.hub import Fault, Hub
from tests.making import add_evaluation, draw_cell, make_config, make_entry
from tests.preloaded import TIMEOUT, forked
from zoo.entry import BrokenEntry, Entry, EntryError, read_card, read_entry, read_history, read_predictions
from zoo.files import write_json
from zoo.limits import FREE_DISK_MB, HUB_TIMEOUT
from zoo.serving.runtime import Runtime
from zoo.sources import hub as zoo_hub
from zoo.sources.catalogue import get_entry, list_entries, sources
from zoo.sources.hub import HubSource, Remote

CARD = "---\nlicense: apache-2.0\nlibrary_name: timm\ntags:\n- hemazoo\n---\n# Tiny\n\nMade by a test.\n"


def files_of(folder: Path) -> dict[str, bytes | None]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**found, "README.md": CARD.encode()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("entries")
    for seed, (name, architecture) in enumerate([("one", "test_resnet"), ("two", "cnn60"), ("newer", "test_resnet")]):
        add_evaluation(make_entry(place / name, architecture, seed), seed)
    write_json(place / "both" / "config.json", make_config("test_resnet", title="Both", members=["one", "two"]))
    return place


@pytest.fixture
def server(hub, folders, monkeypatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HEMAZOO_HUB_TTL", "600")
    for name in ("one", "two", "both"):
        hub.put(f"alice/{name}", files_of(folders / name))
    hub.put("alice/poem", {"README.md": b"no model"})
    return hub


def of(place: str) -> dict:
    return {entry.id: entry for entry in HubSource(place).entries()}


def again() -> None:
    """Start as a new process does: nothing is remembered but what is on the disk."""
    zoo_hub.reset()


def test_a_listing_fetches_only_json(server, folders):
    found = of("alice")
    assert sorted(found) == ["alice--both", "alice--one", "alice--two"]
    one, local = found["alice--one"], read_entry(folders / "one")
    assert one.usable
    assert one.weights.bytes == local.weights.bytes
    assert one.evaluation == local.evaluation
    assert one.origin.sha == server.repos["models", "alice/one"].at("main").sha
    assert not server.count(r"GET /cdn"), "weights and predictions are not fetched for a list"
    # nor is the Hub asked again
    requests = len(server.log)
    assert of("alice").keys() == found.keys()
    assert len(server.log) == requests
    # a process that begins later asks for the list alone
    again()
    assert of("alice").keys() == found.keys()
    assert len(server.log) == requests + 1


def test_files_are_fetched_when_they_are_read(server, folders):
    one, local = of("alice")["alice--one"], read_entry(folders / "one")
    assert read_predictions(one, "drawn-test").equals(read_predictions(local, "drawn-test"))
    assert read_history(one).equals(read_history(local))
    assert "Made by a test" in read_card(one)
    assert not (one.folder / "model.safetensors").exists()


def test_a_hub_model_answers_like_the_same_model_in_a_folder(server, folders, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", f"{folders / 'newer'}:hub:alice")
    image = draw_cell("monocyte", 3)
    told: list[tuple[int, int]] = []
    one = zoo_hub.fetch(get_entry("alice--one"), lambda done, size: told.append((done, size)))
    assert told[-1] == (one.weights.bytes, one.weights.bytes)
    assert one.weights.parameters == read_entry(folders / "one").weights.parameters
    with Runtime("cpu", "fp32") as runtime:
        local = {name: runtime.classify(read_entry(folders / name), image) for name in ("one", "two")}
        assert runtime.classify(get_entry("alice--one"), image).probabilities == local["one"].probabilities
        both = runtime.classify(get_entry("alice--both"), image).probabilities
    for label, share in both.items():
        assert share == pytest.approx(np.mean([found.probabilities[label] for found in local.values()]), abs=1e-6)
    assert server.count(r"GET /cdn") == 2, "each weights file is fetched once"


def test_places_are_namespaces_repositories_and_collections(server, monkeypatch):
    slug = "alice/cells-abcdefabcdefabcdefabcdef"
    server.collections[slug] = ["alice/two"]
    monkeypatch.setenv("HEMAZOO_ZOO", f"hub:alice/one:hub:{slug}")
    assert [source.name for source in sources()] == ["builtin", "hub:alice/one", f"hub:{slug}"]
    assert list(of("alice/one")) == ["alice--one"]
    assert list(of(slug)) == ["alice--two"]
    assert {"alice--one", "alice--two"} < {entry.id for entry in list_entries()}


def test_a_model_is_pinned_to_its_commit(server, folders, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", "hub:alice")
    image = draw_cell("neutrophil", 5)
    old = of("alice")["alice--one"]
    server.repos["models", "alice/one"].refs["refs/tags/v1"] = old.origin.sha
    with Runtime("cpu", "fp32") as runtime:
        before = runtime.classify(old, image).probabilities
        server.put("alice/one", files_of(folders / "newer"))
        assert of("alice")["alice--one"].origin.sha == old.origin.sha, "the list is fresh"
        zoo_hub.forget()
        new = of("alice")["alice--one"]
        assert new.origin.sha != old.origin.sha
        after = runtime.classify(new, image).probabilities
        assert after == runtime.classify(read_entry(folders / "newer"), image).probabilities != before
        found = {(one.kind, one.name): one.sha for one in zoo_hub.revisions(new)}
        assert found["tag", "v1"] == old.origin.sha
        assert found["branch", "main"] == new.origin.sha
        assert [sha for (kind, _), sha in found.items() if kind == "commit"] == [new.origin.sha, old.origin.sha]
        for name in ("alice/one@v1", f"alice/one@{old.origin.sha}"):
            pinned = get_entry(name)
            assert pinned.origin.sha == old.origin.sha
            assert runtime.classify(pinned, image).probabilities == before


def test_only_configured_places_are_trusted(server, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", "hub:bob")
    with pytest.raises(EntryError, match="HEMAZOO_HUB_ANY"):
        get_entry("alice/one")
    assert not server.count("alice")
    monkeypatch.setenv("HEMAZOO_HUB_ANY", "1")
    assert get_entry("alice/one").usable
    with pytest.raises(EntryError, match="no such repository"):
        get_entry("alice/none")
    with pytest.raises(EntryError, match="no such revision"):
        get_entry("alice/one@v9")


def test_downloaded_models_work_without_network(server, monkeypatch):
    image = draw_cell("monocyte", 3)
    with Runtime("cpu", "fp32") as runtime:
        before = runtime.classify(of("alice")["alice--one"], image).probabilities
    assert of("alice/two")["alice--two"].usable
    checked = zoo_hub.status("alice").checked
    monkeypatch.setenv("HEMAZOO_HUB_TTL", "0.001")
    for switch in ("refusing", "offline"):
        again()
        if switch == "refusing":
            server.faults.append(Fault("/api/", times=10**6, status=418))
        else:
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        found = of("alice")
        zoo_hub.listings.wait()
        found = of("alice")
        status = zoo_hub.status("alice")
        assert status.checked == pytest.approx(checked)
        assert status.problem
        assert found["alice--one"].usable
        assert not found["alice--two"].usable
        assert "not on this computer" in found["alice--two"].reason
        # a place that is one repository knows it as well
        of("alice/two")
        zoo_hub.listings.wait()
        assert not of("alice/two")["alice--two"].usable
        with Runtime("cpu", "fp32") as runtime:
            assert runtime.classify(found["alice--one"], image).probabilities == before


def test_offline_mode_sends_no_request(server, monkeypatch):
    of("alice")
    requests = len(server.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again()
    assert isinstance(of("alice")["alice--one"], Entry)
    with pytest.raises(EntryError, match="cannot be reached"):
        zoo_hub.resolve("alice/one", "main")
    assert len(server.log) == requests


def test_an_unknown_place_is_listed_with_the_reason(server, monkeypatch):
    for place, words in (("alice/none", "no such repository"), ("a b", "no place on the Hub"), ("nobody", "holds no")):
        (entry,) = HubSource(place).entries()
        assert isinstance(entry, BrokenEntry)
        assert words in entry.reason


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("GET /api/models/alice/one", 99, 429, {"Retry-After": "7"}), "rate limit.*7 seconds"),
        (Fault("GET /api/models/alice/one", 99, 500), "internal problem"),
        (Fault("GET /api/models/alice/one", 99, delay=3), "did not answer"),
        (Fault("GET /api/models/alice/one", 99, 418), "refused"),
    ],
    ids=["rate limit", "server error", "slow", "refused"],
)
def test_failed_requests_give_a_reason(server, monkeypatch, fault, words):
    monkeypatch.setenv(HUB_TIMEOUT.variable, "0.5")
    server.faults.append(fault)
    found = of("alice")
    assert isinstance(found["alice--one"], BrokenEntry)
    assert re.search(words, found["alice--one"].reason), found["alice--one"].reason
    assert found["alice--two"].usable


def test_private_and_gated_models_give_instructions(server, monkeypatch):
    monkeypatch.setenv("HEMAZOO_ZOO", "hub:alice")
    server.repos["models", "alice/one"].private = True
    server.repos["models", "alice/two"].gated = True
    found = of("alice")
    assert "alice--one" not in found
    assert "access has to be granted" in found["alice--two"].reason
    with pytest.raises(EntryError, match=r"private.*hf auth login"):
        get_entry("alice/one")
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    zoo_hub.forget()
    found = of("alice")
    assert found["alice--one"].usable
    assert found["alice--two"].usable


def test_a_deleted_model_gives_an_error_and_others_work(server):
    found = of("alice")
    del server.repos["models", "alice/one"]
    with Runtime("cpu", "fp32") as runtime:
        with pytest.raises(EntryError, match="no such repository"):
            runtime.classify(found["alice--one"], draw_cell("monocyte", 1))
        assert runtime.classify(found["alice--two"], draw_cell("monocyte", 1)).label
        # it is back
        server.put("alice/one", {"README.md": CARD.encode()})
        with pytest.raises(EntryError, match=r"no such revision|not in the repository"):
            runtime.classify(found["alice--one"], draw_cell("monocyte", 1))


def test_an_interrupted_download_is_resumed(server, folders):
    server.faults.append(Fault("GET /cdn", 2, cut_after=20_000))
    one = zoo_hub.fetch(of("alice")["alice--one"])
    assert (one.folder / "model.safetensors").read_bytes() == (folders / "one" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("times", [1, 9])
def test_a_damaged_download_is_repeated_once_then_refused(server, folders, times):
    one = of("alice")["alice--one"]
    told = one.origin.commit.files["model.safetensors"]
    right = server.blobs[told.oid]
    wrong = right[:-100] + bytes(100)
    left = [times]

    def damage() -> None:
        left[0] -= 1
        server.blobs[told.oid] = wrong if left[0] >= 0 else right

    server.faults.append(Fault("GET /cdn", 99, do=damage))
    if times == 1:
        assert (zoo_hub.fetch(one).folder / "model.safetensors").read_bytes() == right
    else:
        with pytest.raises(EntryError, match="damaged twice"):
            zoo_hub.fetch(one)
        with Runtime("cpu", "fp32") as runtime, pytest.raises(EntryError, match="damaged twice"):
            runtime.classify(one, draw_cell("monocyte", 1))


def test_a_full_disk_gives_an_error_and_leaves_no_partial_file(server, monkeypatch):
    one = of("alice")["alice--one"]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(EntryError, match="disk is full"):
            zoo_hub.fetch(one)
    assert not (one.folder / "model.safetensors").exists()
    assert zoo_hub.fetch(one).usable


def test_a_download_leaves_free_disk_space(server, monkeypatch):
    one = of("alice")["alice--one"]
    nearly = shutil.disk_usage("/")._replace(free=FREE_DISK_MB.bytes + one.weights.bytes - 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: nearly)
        with pytest.raises(EntryError, match="disk is full"):
            zoo_hub.fetch(one)
    assert not server.count("GET /cdn")
    assert zoo_hub.fetch(one).usable


@pytest.mark.parametrize("damage", ["blob gone", "blob empty", "half arrived", "config gone", "notes torn"])
def test_a_damaged_cache_is_repaired(server, folders, tmp_path, damage):
    one = zoo_hub.fetch(of("alice")["alice--one"])
    weights = one.folder / "model.safetensors"
    right = weights.read_bytes()
    blob = weights.resolve()
    if damage == "blob gone":
        blob.unlink()
    elif damage == "blob empty":
        blob.write_bytes(b"")
    elif damage == "half arrived":
        weights.unlink()
        blob.rename(f"{blob}.incomplete")
        Path(f"{blob}.incomplete").write_bytes(right[:5000])
    elif damage == "config gone":
        (one.folder / "config.json").unlink()
    else:
        for note in (tmp_path / "cache" / "hub").rglob("*.json"):
            note.write_text(note.read_text()[:20])
    again()
    found = zoo_hub.fetch(of("alice")["alice--one"])
    assert found.usable
    assert (found.folder / "model.safetensors").read_bytes() == right


def test_other_files_of_a_repository_are_ignored(server, folders):
    server.put("alice/one", {"evil.py": b"import os", "pytorch_model.bin": b"x", "sub/config.json": b"{}"})
    zoo_hub.forget()
    one = zoo_hub.fetch(of("alice")["alice--one"])
    assert not [name for name in one.origin.commit.files if name not in files_of(folders / "one")]
    assert not any(server.count(name) for name in ("evil", "bin", "sub"))


def _one_of_many(number: int, cache: str, hf: str, url: str, queue: multiprocessing.Queue) -> None:
    os.environ |= {"HEMAZOO_CACHE": cache, "HF_HUB_CACHE": hf, "HF_ENDPOINT": url}
    constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = False, hf
    try:
        one = {entry.id: entry for entry in HubSource("alice").entries()}["alice--one"]
        with Runtime("cpu", "fp32") as runtime:
            queue.put(runtime.classify(one, draw_cell("monocyte", 3)).probabilities)
    except Exception as error:
        queue.put(repr(error))


def test_eight_processes_download_once(server, tmp_path):
    context = forked()
    queue = context.Queue()
    server.faults.append(Fault("GET /cdn", 99, delay=0.05))
    given = (str(tmp_path / "cache"), str(tmp_path / "hf"), server.url, queue)
    processes = [context.Process(target=_one_of_many, args=(number, *given)) for number in range(8)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=TIMEOUT) for _ in processes]
    for process in processes:
        process.join(30)
    assert all(answer == found[0] for answer in found)
    assert isinstance(found[0], dict), found[0]
    assert server.count(r"GET /cdn") == 1


def test_repositories_are_read_in_parallel(server, folders):
    """Reading 40 repositories takes less time than one after the other would."""
    config = (folders / "one" / "config.json").read_bytes()
    for number in range(40):
        server.put(f"alice/more{number}", {"config.json": config, "README.md": CARD.encode()})
    server.faults.append(Fault("GET /api/models/alice/more", 40, delay=0.2))
    start = time.monotonic()
    assert len(of("alice")) == 43
    assert time.monotonic() - start < 40 * 0.2


def test_an_origin_knows_which_files_are_local(server):
    one = of("alice")["alice--one"]
    assert isinstance(one.origin, Remote)
    assert one.origin.is_local("config.json")
    assert not one.origin.is_local("model.safetensors")
    assert one.origin.is_local("head.skops"), "there is none to fetch"
