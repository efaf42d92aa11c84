"""`python -m zoo serve`: a real server, which the tests start and end."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from tests.making import LABELS, draw_cell
from zoo.entry import read_entry
from zoo.imaging.decode import decode
from zoo.serving.bulk import classify_paths
from zoo.serving.runtime import Runtime

ROOT = Path(__file__).parents[3]
MODEL, TOKEN = "tiny-cnn60", "a token of the tests"
PATIENCE = 120  # seconds, on a busy machine
SECRET_NAME = "Jane Doe 1970-01-01.png"


@dataclass
class Server:
    """A running server; `lines` are those of its log, all of them once it has ended."""

    address: str
    process: subprocess.Popen[str]
    lines: list[str]

    def post(self, path: str, files: list, token: str = TOKEN, **fields: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.post(self.address + path, files=files, data=fields, headers=headers, timeout=PATIENCE)

    def get(self, path: str, token: str = TOKEN, **headers: str) -> requests.Response:
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        return requests.get(self.address + path, headers=headers, timeout=PATIENCE)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        assert self.process.stderr
        self.lines += self.process.stderr.readlines()
        return self.process.wait(PATIENCE)


@contextmanager
def serve(zoo: Path, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "zoo", "serve", "--port", "0", "--device", "cpu", "--precision", "fp32"]
    command += ["--backend", "torch"]
    variables = {**os.environ, "HEMAZOO_ZOO": str(zoo), "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        lines, address = [], None
        assert process.stderr
        while address is None:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
            address = re.search(r"running on (http://127\.0\.0\.1:\d+)", lines[-1])
        yield Server(address[1], process, lines)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tiny_zoo: Path) -> Iterator[Server]:
    with serve(tiny_zoo, HEMAZOO_TOKEN=TOKEN, HEMAZOO_REQUEST_MB="1", HEMAZOO_REQUEST_FILES="20") as running:
        yield running
        assert running.end(signal.SIGTERM) == 0


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [png(draw_cell(LABELS[n % len(LABELS)], n)) for n in range(16)]


def parts(contents: list[bytes], field: str = "files") -> list:
    return [(field, (f"{n}.png", content)) for n, content in enumerate(contents)]


def test_records_are_those_of_the_command_line(server, pictures, tiny_zoo, tmp_path):
    paths = []
    for n, content in enumerate(pictures[:4]):
        paths.append(tmp_path / f"{n}.png")
        paths[-1].write_bytes(content)
    with Runtime("cpu", "fp32", backend="torch") as runtime:
        expected = list(classify_paths(runtime, read_entry(tiny_zoo / MODEL), map(str, paths)))
    answer = server.post("/classify", parts(pictures[:4]), model=MODEL).json()
    assert answer["model"] == MODEL
    for record, other in zip(answer["results"], expected, strict=True):
        assert record.keys() == other.keys()
        assert (record["file"], record["label"]) == (Path(other["file"]).name, other["label"])
        assert record["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_a_bad_file_among_good_ones_has_an_error_of_its_own(server, pictures):
    answer = server.post("/classify", parts([pictures[0], b"no picture", pictures[1]]), model=MODEL)
    assert answer.status_code == 200
    first, bad, last = answer.json()["results"]
    assert first["label"] and last["label"]
    assert "not a picture" in bad["error"]


def test_eight_clients_get_the_answers_of_one(server, pictures):
    def ask(content: bytes) -> dict:
        return server.post("/classify", parts([content]), model=MODEL).json()["results"][0]

    alone = [ask(content) for content in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, pictures))
    for one, other in zip(alone, together, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_an_explanation_has_the_map_and_the_overlay(server, pictures):
    sent = parts(pictures[:1], "file")
    answer = server.post("/explain", sent, model=MODEL, **{"class": LABELS[1], "method": "layer-cam"}).json()
    assert (answer["label"], answer["method"]) == (LABELS[1], "layer-cam")
    image = decode(base64.b64decode(answer["overlay"]))
    values = np.load(io.BytesIO(base64.b64decode(answer["map"])), allow_pickle=False)
    assert image.size == values.shape[::-1] == (96, 96)


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/classify", {"model": "nothing"}, 404, "There is no model 'nothing'"),
        ("/classify", {}, 422, "model: field required"),
        ("/classify", {"model": MODEL, "sample": "no such"}, 422, "There is no sample"),
        ("/classify", {"model": MODEL, "sample": "/etc/hostname.toml"}, 422, "A sample is one of"),
        ("/classify", {"model": MODEL, "views": "3"}, 422, "views"),
        ("/explain", {"model": MODEL, "method": "guess"}, 422, "There is no method"),
        ("/explain", {"model": MODEL, "class": "zebra"}, 422, "has no class 'zebra'"),
        ("/nothing", {"model": MODEL}, 404, "/docs shows"),
    ],
)
def test_errors_are_sentences_of_one_shape(server, pictures, path, fields, status, words):
    field = "file" if path == "/explain" else "files"
    answer = server.post(path, parts(pictures[:1], field), **fields)
    assert answer.status_code == status
    assert answer.json().keys() == {"error", "request"}
    assert words in answer.json()["error"]
    assert answer.json()["request"] == answer.headers["x-request-id"]


def test_a_picture_that_cannot_be_read_is_not_explained(server):
    answer = server.post("/explain", [("file", (SECRET_NAME, b"no picture"))], model=MODEL)
    assert (answer.status_code, answer.json().keys()) == (422, {"error", "request"})
    assert "not a picture" in answer.json()["error"]


@pytest.mark.parametrize("streamed", [False, True], ids=["announced", "streamed"])
def test_a_request_that_is_too_large_is_refused_while_it_is_read(server, streamed):
    head = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    chunks = [head, *[b"0" * 100_000] * 12, b"\r\n--limit--\r\n"]
    answer = requests.post(
        server.address + "/classify",
        data=iter(chunks) if streamed else b"".join(chunks),  # without its length, only the reading tells
        headers={
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "multipart/form-data; boundary=limit",
        },
        timeout=PATIENCE,
    )
    assert (answer.status_code, answer.json()["error"]) == (
        413, "The request is larger than 1 MB. Send fewer or smaller pictures.",
    )  # fmt: skip


def test_too_many_files_are_refused(server, pictures):
    answer = server.post("/classify", parts(pictures[:1] * 21), model=MODEL)
    assert (answer.status_code, "may have 20 files" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("token", ["", "wrong", "a token of the tests ☃"])
def test_without_the_token_only_health_and_docs_answer(server, token):
    headers = {"Authorization": f"Bearer {token}".encode()} if token else {}
    answers = {
        path: requests.get(server.address + path, headers=headers, timeout=PATIENCE).status_code
        for path in ("/health", "/docs", "/openapi.json", "/models", "/metrics")
    }
    assert answers == {"/health": 200, "/docs": 200, "/openapi.json": 200, "/models": 401, "/metrics": 401}


def test_a_name_that_is_not_the_servers_is_refused(server):
    assert server.get("/models", Host="stranger.example").status_code == 400


def test_the_docs_load_nothing_from_elsewhere(server):
    page = server.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources and all(source.startswith("/docs/assets/") for source in sources)
    assert {server.get(source).status_code for source in sources} == {200}
    paths = server.get("/openapi.json").json()["paths"]
    assert {"/classify", "/explain", "/models", "/health", "/metrics"} == set(paths)


def test_models_and_metrics(server, pictures):
    assert MODEL in {model["id"] for model in server.get("/models").json()}
    server.post("/classify", parts(pictures[:1]), model=MODEL)
    text = server.get("/metrics").text
    assert re.search(r'hemazoo_http_requests_total\{route="/classify",status="200"\} [1-9]', text)
    assert re.search(r"^hemazoo_answered_total [1-9]", text, re.MULTILINE)


def test_ctrl_c_ends_the_server_in_order_and_its_log_names_no_file(tiny_zoo, pictures):
    with serve(tiny_zoo, HEMAZOO_TOKEN="") as running:
        answer = running.post("/classify", [("files", (SECRET_NAME, pictures[0]))], token="", model=MODEL)
        assert answer.json()["results"][0]["file"] == SECRET_NAME
        assert running.end(signal.SIGINT) == 0
        log = "".join(running.lines)
        assert answer.headers["x-request-id"] in log
        assert "Jane" not in log and "Traceback" not in log


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--port", "no"], "is not a port"), (["--host", "203.0.113.1", "--port", "0"], "203.0.113.1")],
)
def test_a_wrong_address_is_said(options, words):
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "serve", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert words in done.stderr and "Traceback" not in done.stderr
