"""Data sets are fetched whole or not at all, and without a connection a sentence says what to do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import medmnist
import numpy as np
import pytest

from tests.making import LABELS, draw_cell, draw_folder
from training.cli import main
from zoo.data import read_dataset


@contextmanager
def served(answers: dict[str, bytes], headers: dict[str, dict[str, str]] | None = None) -> Iterator[str]:
    """A loopback server that answers paths (without their query) and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            content = answers.get(path)
            self.send_response(404 if content is None else 200)
            for name, value in ((headers or {}).get(path) or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815 (the name http.server looks for)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def archive() -> bytes:
    buffer = io.BytesIO()
    images = np.stack([np.asarray(draw_cell(LABELS[n % 4], n, (28, 28))) for n in range(8)])
    arrays = {}
    for part in ("train", "val", "test"):
        arrays |= {f"{part}_images": images, f"{part}_labels": np.arange(8)[:, None]}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_medmnist_set(tmp_path, monkeypatch, capsys):
    content = archive()
    with served({"/bloodmnist.npz": content}) as address:
        monkeypatch.setitem(medmnist.INFO["bloodmnist"], "url", f"{address}/bloodmnist.npz")
        monkeypatch.setitem(medmnist.INFO["bloodmnist"], "MD5", hashlib.md5(content).hexdigest())
        assert main(["fetch", "bloodmnist", "--out", str(tmp_path / "blood"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 24
    assert "basophil" in told["classes"]
    assert read_dataset(tmp_path / "blood").table["split"].nunique() == 3


@pytest.mark.parametrize("name", ["bloodmnist_64", "blood-cells", "kaggle:some/set", "hf:some/set"])
def test_without_a_connection_it_says_what_to_do(tmp_path, monkeypatch, capsys, name):
    for kind in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(kind, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    assert main(["fetch", name, "--out", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().err
    assert "copy the folder here" in said or "Kaggle" in said
    assert "Traceback" not in said
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))


@pytest.mark.parametrize("name", ["nothing", "kaggle:", "hf:../../etc", "hf:a/b/c", "kaggle:a b/c", "xmnist"])
def test_refuses_unknown_names(tmp_path, capsys, name):
    assert main(["fetch", name, "--out", str(tmp_path / "set")]) == 2
    assert "no data set we can fetch" in capsys.readouterr().err


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "set").mkdir()
    assert main(["fetch", "bloodmnist", "--out", str(tmp_path / "set")]) == 2


def test_data_sets_in_a_kaggle_archive_get_folders_of_their_own(tmp_path, monkeypatch, capsys):
    def download(handle: str, output_dir: str) -> str:
        assert handle == "paultimothymooney/blood-cells"
        root = Path(output_dir)
        for part in ("TRAIN", "TEST"):
            draw_folder(root / "dataset2-master" / "dataset2-master" / "images" / part, 1)
        frames = root / "dataset-master" / "dataset-master" / "JPEGImages"
        frames.mkdir(parents=True)
        draw_cell("monocyte").save(frames / "BloodImage_00000.jpg")
        return output_dir

    monkeypatch.setattr("kagglehub.dataset_download", download)
    out = tmp_path / "cells"
    assert main(["fetch", "blood-cells", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["bccd", "dataset2"]
    assert sorted(p.name for p in (out / "dataset2").iterdir()) == ["TEST", "TRAIN"]
    assert f"--originals {out / 'bccd' / 'JPEGImages'}" in capsys.readouterr().err


def test_a_data_set_repo_of_the_hub(tmp_path):
    """Through huggingface_hub itself, against a server that speaks its protocol for one small repo."""
    commit = "c" * 40
    files = {}
    for n, label in enumerate(LABELS):
        buffer = io.BytesIO()
        draw_cell(label, n).save(buffer, "PNG")
        files[f"train/{label}/{n}.png"] = buffer.getvalue()
    files["script.py"] = b"raise SystemExit"
    siblings = [{"rfilename": name} for name in files]
    about = json.dumps({"id": "lab/cells", "sha": commit, "siblings": siblings, "private": False}).encode()
    tree = json.dumps(
        [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
    ).encode()
    answers, headers = {}, {}
    for revision in ("main", commit):
        answers[f"/api/datasets/lab/cells/revision/{revision}"] = about
        answers[f"/api/datasets/lab/cells/tree/{revision}"] = tree
        for name, data in files.items():
            path = f"/datasets/lab/cells/resolve/{revision}/{name}"
            answers[path] = data
            headers[path] = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
    with served(answers, headers) as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "no_proxy": "127.0.0.1",
        }
        command = [
            sys.executable,
            "-m",
            "training",
            "fetch",
            "hf:lab/cells",
            "--out",
            str(tmp_path / "cells"),
            "--json",
        ]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["classes"] == LABELS
    assert not list((tmp_path / "cells").rglob("*.py"))
    data = read_dataset(tmp_path / "cells")
    assert {item.split for item in data.items} == {"train"}
