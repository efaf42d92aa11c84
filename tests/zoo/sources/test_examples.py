"""Examples are downloaded from a real server, checked by their hash, and stored."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from functools import partial

import pytest

from tests.making import draw_cell
from zoo.imaging.decode import decode
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import MODEL, get_entry
from zoo.sources.examples import ExamplesError, bundled_examples, fetch, list_examples


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A loopback server with one picture, and a manifest that names it."""
    folder = tmp_path / "served"
    folder.mkdir()
    draw_cell("monocyte").save(folder / "cell.png")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    item = {
        "name": "cell.png",
        "label": "monocyte",
        "url": f"http://127.0.0.1:{running.server_port}/cell.png",
        "sha256": hashlib.sha256((folder / "cell.png").read_bytes()).hexdigest(),
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"credit": "a test", "examples": [item]}))
    monkeypatch.setenv("HEMAZOO_EXAMPLES_MANIFEST", str(manifest))
    monkeypatch.setenv("HEMAZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEMAZOO_EXAMPLES", raising=False)
    yield folder
    running.shutdown()
    running.server_close()
    thread.join()


def test_an_example_is_downloaded_once(server):
    (example,) = list_examples()
    assert example.path is None
    found = fetch(example)
    assert decode(found.path).size == (96, 96)
    (server / "cell.png").unlink()
    (again,) = list_examples()
    assert again.path == found.path
    assert fetch(again) == again


def test_a_changed_file_is_refused_and_not_kept(server):
    draw_cell("monocyte", 5).save(server / "cell.png")
    (example,) = list_examples()
    with pytest.raises(ExamplesError, match="has changed at its address and was not kept"):
        fetch(example)
    assert list_examples()[0].path is None


def test_a_damaged_copy_is_downloaded_again(server):
    (example,) = list_examples()
    path = fetch(example).path
    path.write_bytes(b"damaged")
    (example,) = list_examples()
    assert example.path is None
    assert decode(fetch(example).path).size == (96, 96)


def test_a_missing_file_gives_an_error(server):
    (server / "cell.png").unlink()
    (example,) = list_examples()
    with pytest.raises(ExamplesError, match="cannot be fetched"):
        fetch(example)


def test_the_shipped_manifest_names_twelve_frames(monkeypatch):
    monkeypatch.delenv("HEMAZOO_EXAMPLES", raising=False)
    found = list_examples()
    assert len({example.sha256 for example in found}) == 12
    assert all(example.url.startswith("https://") and "MIT" in example.credit for example in found)


def test_the_bundled_examples_are_of_every_kind_and_the_one_without_a_cell_is_refused():
    entry, examples = get_entry(MODEL), {example.label: example for example in bundled_examples()}
    assert set(entry.class_names.values()) < set(examples)
    assert all(example.credit for example in examples.values())
    with Runtime("cpu") as runtime:
        answer = runtime.classify(entry, decode(examples["not a cell"].path.read_bytes()))
    assert answer.warning
