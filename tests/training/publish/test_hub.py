"""`python -m training publish`: one commit of what changed, all or nothing, and the same answers from the Hub."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants

from tests.hub import Fault, Hub
from tests.making import add_evaluation, draw_cell, make_entry
from tests.preloaded import TIMEOUT, forked
from training.cli import main
from training.publish.hub import ASSETS
from training.recipe import load_recipe, read_recipe
from zoo.architectures import is_own
from zoo.entry import CARD, BrokenEntry, Entry, read_entry
from zoo.files import write_json
from zoo.imaging.decode import decode
from zoo.serving.runtime import Runtime
from zoo.sources import hub as zoo_hub
from zoo.sources.catalogue import BUILTIN, FolderSource

ENTRIES = FolderSource(BUILTIN, "builtin").entries()
PUBLISHERS = 8


@pytest.fixture
def server(hub) -> Hub:
    return hub


@pytest.fixture
def folder(tmp_path) -> Path:
    made = make_entry(tmp_path / "zoo" / "tiny", "test_resnet")
    add_evaluation(made, 1)
    return made


def files(hub: Hub, name: str = "alice/tiny", revision: str = "main") -> dict[str, bytes]:
    stored = hub.repos["models", name].at(revision).files
    return {path: hub.blobs[one.oid] for path, one in stored.items() if path != ".gitattributes"}


def test_an_entry_is_published_and_verified(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice", "--tag", "v1", "--json"]) == 0
    out, err = capsys.readouterr()
    (told,) = json.loads(out)
    assert told["repo"] == "alice/tiny"
    assert "published at" in err
    assert "hf_alice" not in out + err
    there = files(server)
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert there[path.relative_to(folder).as_posix()] == path.read_bytes()
    card = ModelCard(there["README.md"].decode())
    assert zoo_hub.TAG in card.data.tags
    assert {f"{ASSETS}/confusion.png", f"{ASSETS}/curves.png"} <= set(there)
    repo = server.repos["models", "alice/tiny"]
    assert repo.refs["refs/tags/v1"] == repo.refs["refs/heads/main"] == told["sha"]
    assert len(repo.commits) == 2, "the Hub's own and one of ours"
    assert server.count("GET /cdn") >= 1, "it was fetched again to prove it"
    assert [entry.id for entry in zoo_hub.HubSource("alice").entries()] == ["alice--tiny"]


def test_publishing_again_sends_changes_and_deletes_removed_files(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 0
    repo = server.repos["models", "alice/tiny"]
    server.put("alice/tiny", {"LICENSE": b"by hand"})
    commits, uploads = len(repo.commits), server.count("PUT /lfs")
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 0
    assert "nothing has changed" in capsys.readouterr().err
    assert len(repo.commits) == commits
    (folder / "history.json").unlink()
    add_evaluation(folder, 2)
    assert main(["publish", str(folder), "--repo", "alice/tiny", "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "- history.json" in told
    assert "~ evaluation.json" in told
    assert "model.safetensors" not in told
    assert len(repo.commits) == commits
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 0
    there = files(server)
    assert len(repo.commits) == commits + 1
    assert "history.json" not in there
    assert f"{ASSETS}/curves.png" not in there
    assert there["LICENSE"] == b"by hand", "what no entry has is let alone"
    assert there["evaluation.json"] == (folder / "evaluation.json").read_bytes()
    assert server.count(r"PUT /lfs") > uploads


def test_a_simultaneous_publication_is_refused_and_nothing_is_lost(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 0
    add_evaluation(folder, 2)
    server.faults.append(Fault("POST .*/commit/", do=lambda: server.put("alice/tiny", {"LICENSE": b"theirs"})))
    before = files(server)
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 1
    assert "somebody else published meanwhile" in capsys.readouterr().err
    assert files(server) == before | {"LICENSE": b"theirs"}
    assert main(["publish", str(folder), "--repo", "alice/tiny"]) == 0
    assert files(server)["LICENSE"] == b"theirs"


def test_a_dry_run_changes_nothing(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice", "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    (told,) = json.loads(out)
    assert told["sha"] is None
    assert "model.safetensors" in told["change"]["added"]
    assert "+ model.safetensors" in err
    assert not server.repos


def test_a_tag_is_not_moved(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice", "--tag", "v1"]) == 0
    assert main(["publish", str(folder), "--repo", "alice", "--tag", "v1"]) == 0, "it is where it belongs"
    add_evaluation(folder, 2)
    before = files(server)
    assert main(["publish", str(folder), "--repo", "alice", "--tag", "v1"]) == 1
    assert "tags are not moved" in capsys.readouterr().err
    assert files(server) == before


def test_a_pull_request_leaves_main_alone(server, folder, capsys):
    assert main(["publish", str(folder), "--repo", "alice"]) == 0
    add_evaluation(folder, 2)
    before = files(server)
    assert main(["publish", str(folder), "--repo", "alice", "--pr", "--json"]) == 0
    assert "discussions" in json.loads(capsys.readouterr().out)[0]["url"]
    assert files(server) == before
    assert files(server, revision="refs/pr/1")["evaluation.json"] == (folder / "evaluation.json").read_bytes()


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_bob", "alice", "refused|token"),
        ("hf_wrong", "alice", "token is not valid"),
        ("", "alice", "hf auth login"),
        ("hf_alice", "alice/a--b", "Hub does not allow|refused"),
    ],
)
def test_refusals_of_the_hub_are_reported(server, folder, capsys, monkeypatch, token, repo, words):
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["publish", str(folder), "--repo", repo]) == 1
    err = capsys.readouterr().err
    assert re.search(words, err), err
    assert not token or token not in err
    assert not server.repos


def test_a_private_repository_is_not_visible_to_others(server, folder, monkeypatch):
    assert main(["publish", str(folder), "--repo", "alice", "--private"]) == 0
    assert server.repos["models", "alice/tiny"].private
    assert [entry.id for entry in zoo_hub.HubSource("alice").entries()] == ["alice--tiny"]
    zoo_hub.forget()
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    assert all(isinstance(entry, BrokenEntry) for entry in zoo_hub.HubSource("alice").entries())


def test_a_broken_entry_is_not_published(server, tmp_path, capsys):
    folder = make_entry(tmp_path / "broken", "test_resnet")
    write_json(folder / "config.json", {"architecture": "x"})
    assert main(["publish", str(folder), "--repo", "alice"]) == 1
    assert not server.repos
    assert main(["publish", "a", "b", "--repo", "alice/one"]) in (1, 2)


def test_several_entries_are_published_into_a_namespace(server, folder, capsys):
    other = make_entry(folder.parent / "other", "cnn60")
    assert main(["publish", str(folder), str(other), "--repo", "alice/one"]) == 2
    assert main(["publish", str(folder), str(other), "--repo", "alice"]) == 0
    assert {name for _, name in server.repos} == {"alice/tiny", "alice/other"}


def _publish(folder: str, given: dict[str, str], ready: Any) -> None:
    os.environ |= given
    constants.HF_HUB_OFFLINE = False
    ready.set()
    sys.exit(main(["publish", folder, "--repo", "alice"]))


def test_after_a_kill_at_any_moment_main_holds_a_whole_entry(server, folder, tmp_path):
    """Publishers with different scores, each killed at a random moment."""
    add_evaluation(folder, 0)
    start = time.monotonic()
    assert main(["publish", str(folder), "--repo", "alice"]) == 0
    # here and now: on a busy machine everything takes longer
    longest = 2 * (time.monotonic() - start)
    states, place = {}, tmp_path / "states"
    for seed in range(PUBLISHERS):
        shutil.copytree(folder, place / str(seed) / "tiny")
        add_evaluation(place / str(seed) / "tiny", seed)
        states[(place / str(seed) / "tiny" / "evaluation.json").read_bytes()] = seed
    context = forked()
    moments, finished = random.Random(3), 0
    given = {key: os.environ[key] for key in ("HF_ENDPOINT", "HF_TOKEN", "HEMAZOO_CACHE")}
    for seed in range(PUBLISHERS):
        ready = context.Event()
        process = context.Process(target=_publish, args=(str(place / str(seed) / "tiny"), given, ready))
        process.start()
        assert ready.wait(TIMEOUT)
        time.sleep(moments.uniform(0, longest))
        process.kill()
        process.join()
        finished += process.exitcode == 0
        there = files(server)
        assert there["evaluation.json"] in states
        seed_there = states[there["evaluation.json"]]
        whole = place / str(seed_there) / "tiny"
        for path in whole.rglob("*"):
            if path.is_file() and path.name != "README.md":
                assert there[path.relative_to(whole).as_posix()] == path.read_bytes()
    assert finished < PUBLISHERS, "some were killed on their way"
    assert len(server.repos["models", "alice/tiny"].commits) > 1, "and some got through"
    zoo_hub.forget()
    (entry,) = zoo_hub.HubSource("alice").entries()
    assert zoo_hub.fetch(entry).usable


@pytest.mark.artefacts
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_built_in_entries_can_be_published(server, entry: Entry, capsys):
    """Each card passes the Hub's validation, and its scores are those of evaluation.json."""
    assert main(["publish", entry.id, "--repo", "alice"]) == 0, capsys.readouterr().err
    text = files(server, f"alice/{entry.id}")["README.md"].decode()
    card = ModelCard(text)
    assert server.count("POST /api/validate-yaml")
    told = {(r.dataset_type, r.metric_type): r.metric_value for r in card.data.eval_results or []}
    tests = {name: b for name, b in entry.evaluation.benchmarks.items() if b.role == "test"}
    assert {name for name, _ in told} == set(tests)
    for (name, metric), value in told.items():
        assert value == pytest.approx(tests[name].metrics[metric].value, abs=5e-5)
    assert f"alice/{entry.id}" in text
    assert read_entry(entry.folder).evaluation == entry.evaluation


def test_plain_timm_gives_the_same_answers(server, tmp_path, capsys):
    """Every entry that is a timm network, in a process with timm and huggingface_hub only."""
    plain = [entry for entry in ENTRIES if entry.usable and is_plain(entry)]
    assert len(plain) >= 4
    assert main(["publish", *(entry.id for entry in plain), "--repo", "alice", "--json"]) == 0
    told = [f"{made['repo']}@{made['sha']}" for made in json.loads(capsys.readouterr().out)]
    picture = tmp_path / "cell.png"
    draw_cell("monocyte", 3, (240, 240)).save(picture)
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "elsewhere"), "HF_TOKEN": ""}
    script = Path(__file__).parents[2] / "plain_timm.py"
    command = [sys.executable, "-I", str(script), str(picture), *told]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Runtime("cpu", "fp32") as runtime:
        for entry, found in zip(plain, json.loads(done.stdout), strict=True):
            here = runtime.classify(entry.with_views(1), decode(picture)).network
            assert found == pytest.approx(here, abs=1e-4), entry.id
    # what is refused there is refused indeed
    refused = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(script.parent)!r}); import plain_timm as p; "
         "p.keep_to(p.WANTED); import streamlit"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No module named 'streamlit'" in refused.stderr


def is_plain(entry: Entry) -> bool:
    """Whether timm alone knows the network, and it sees the picture as timm would show it (of several views, one)."""
    config = entry.config
    return not entry.is_detector and not (
        config.zoo.crop != "none" or config.zoo.members or config.zoo.head or is_own(config.architecture)
    )


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if entry.recipe and not entry.is_detector], ids=lambda entry: entry.id
)
def test_the_command_on_a_card_makes_the_entrys_recipe(entry):
    card = (entry.folder / CARD).read_text(encoding="utf-8")
    words = shlex.split(re.search(r"To train the model again: `python -m training (train [^`]*)`", card)[1])
    changes = [value for key, value in pairwise(words) if key == "--set"]
    named = load_recipe(words[1], changes, published="--published" in words, scratch="--scratch" in words)
    content = json.loads(named.fingerprint())
    if left_out := re.search(r"Leave out (.*?) of a copy", card):  # what --set cannot do
        for key in re.findall(r"`model\.(\w+)`", left_out[1]):
            del content["model"][key]
    assert content == json.loads(read_recipe(entry.recipe, entry.id).fingerprint())


def test_a_dry_run_without_a_network_shows_files_and_card(folder, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["publish", str(folder), "--repo", "alice/tiny", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "all files are listed" in said
    assert "+ model.safetensors" in said and "+ README.md" in said
    assert "license: apache-2.0" in said and "would be published" in said
