"""`python -m training publish-examples`: a few pictures per class without metadata, which the app then shows."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from huggingface_hub import DatasetCard, constants
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.making import LABELS, draw_cell, draw_folder
from tests.pages.test_pages import go, said
from training.cli import main
from zoo.imaging.decode import decode
from zoo.sources import hub as zoo_hub
from zoo.sources.examples import ExamplesError, fetch, list_examples

ROOT = Path(__file__).parents[3]
REPO = "alice/cells"


@pytest.fixture
def folder(tmp_path) -> Path:
    made = draw_folder(tmp_path / "mine", 4)
    exif = Image.Exif()
    exif[0x013B] = "Dr Somebody"
    draw_cell("monocyte", 9).save(made / "monocyte" / "000 Mr Patient.jpg", exif=exif, comment=b"Mr Patient")
    return made


@pytest.fixture
def published(hub, folder, monkeypatch):
    assert main(["publish-examples", str(folder), "--repo", REPO, "--credit", "drawn", "--license", "cc0-1.0"]) == 0
    monkeypatch.setenv("HEMAZOO_EXAMPLES", f"hub:{REPO}")
    monkeypatch.setenv("HF_TOKEN", "")
    return hub


def there(hub) -> dict[str, bytes]:
    stored = hub.repos["datasets", REPO].at("main").files
    return {path: hub.blobs[one.oid] for path, one in stored.items() if path != ".gitattributes"}


def test_pictures_are_published_without_names_and_metadata(published, folder):
    found = there(published)
    card = DatasetCard(found.pop("README.md").decode())
    assert card.data.license == "cc0-1.0"
    assert zoo_hub.TAG in card.data.tags
    assert sorted(found) == sorted(f"{label}/{label}-{n:02}.png" for label in LABELS for n in (1, 2, 3))
    for name, data in found.items():
        assert b"Patient" not in data
        assert b"Somebody" not in data
        image = Image.open(io.BytesIO(data))
        assert not image.getexif()
        assert set(image.info) == set(), name
    sent = np.asarray(decode(found["monocyte/monocyte-02.png"]))
    assert (sent == np.asarray(decode(folder / "monocyte" / "000.png"))).all()


def test_publishing_again_sends_changes(published, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    given = ["publish-examples", str(folder), "--repo", REPO, "--credit", "drawn", "--license", "cc0-1.0"]
    before = published.repos["datasets", REPO].at("main").sha
    assert main(given) == 0
    assert "nothing has changed" in capsys.readouterr().err
    assert published.repos["datasets", REPO].at("main").sha == before
    assert main([*given, "--each", "1", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["change"]["deleted"]) == 2 * len(LABELS)
    assert published.repos["datasets", REPO].at("main").sha == before
    assert main([*given, "--each", "1"]) == 0
    assert sorted(name for name in there(published) if name.endswith(".png")) == sorted(
        f"{label}/{label}-01.png" for label in LABELS
    )


def test_examples_are_listed_and_fetched_on_demand(published, monkeypatch):
    found = list_examples()
    assert len(found) == 12
    assert {example.label for example in found} == set(LABELS)
    assert all(example.path is None and "Hugging Face" in example.credit for example in found)
    assert not published.count(r"GET /cdn")
    one = fetch(found[0])
    assert decode(one.path).size == (96, 96)
    assert published.count(r"GET /cdn") == 1
    # without network what is here goes on, and the rest says why not
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    zoo_hub.forget()
    again = list_examples()
    assert again[0].path == one.path
    with pytest.raises(ExamplesError, match="cannot be reached"):
        fetch(again[1])


def test_the_page_fetches_and_classifies_examples(published):
    st.cache_resource.clear()
    st.cache_data.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    go(app, "examples")
    next(button for button in app.button if button.label.startswith("Download 12 pictures")).click().run()
    assert not app.exception
    assert ", monocyte" in said(app)
    assert [button.label for button in app.button].count("Use") == 12


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        (lambda f: None, ["--each", "9"], "the app shows at most 24"),
        (lambda f: (f / "monocyte" / "000.png").write_bytes(b"no picture"), [], "000.png: .* Nothing was published"),
        (lambda f: [p.unlink() for p in f.rglob("*.*")], [], "There is no picture"),
        (lambda f: None, ["--repo", "a b"], "not the name of a repository"),
        (lambda f: None, ["--repo", "bob/cells"], "refused"),
        (lambda f: None, ["--license", "mine, all mine"], "does not accept the card"),
    ],
    ids=["too many", "damaged", "empty", "name", "another's", "licence"],
)
def test_pictures_that_cannot_be_published_are_refused(hub, folder, capsys, change, given, words):
    draw_folder(folder, 8)
    change(folder)
    assert main(["publish-examples", str(folder), "--repo", REPO, *given]) == 1
    found = capsys.readouterr().err
    assert re.search(words, found), found
    repo = hub.repos.get(("datasets", REPO))
    assert repo is None or not [path for path in repo.at("main").files if path != ".gitattributes"]


def test_other_files_of_the_repository_are_ignored(published, monkeypatch):
    more = {"../evil.png": b"x", "a/b/c.png": b"x", "run.py": b"x", ".hidden.png": b"x", "big.png": bytes(1_000_001)}
    published.put(REPO, more, "datasets")
    monkeypatch.setenv("HEMAZOO_PICTURE_MB", "1")
    zoo_hub.forget()
    assert len(list_examples()) == 12
    monkeypatch.setenv("HEMAZOO_EXAMPLES", "hub:alice/none")
    with pytest.raises(ExamplesError, match="no such repository"):
        list_examples()
