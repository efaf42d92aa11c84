"""A Hub that lies: every lie ends in a sentence, in time, and leaves nothing that is taken for an entry."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.hub import Fault, Hub
from tests.making import add_evaluation, make_entry
from tests.zoo.sources.test_hub import files_of
from zoo.entry import BrokenEntry, EntryError
from zoo.sources import hub as zoo_hub
from zoo.sources.hub import HubSource

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LIMITS = {"HUB_TIMEOUT": "2", "HUB_ANSWER": "1.5", "HUB_ANSWER_MB": "1", "HUB_RATE": "10000", "HUB_FILES": "20"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    folder = make_entry(tmp_path_factory.mktemp("lies") / "one", "test_resnet")
    add_evaluation(folder, 0)
    return files_of(folder)


@pytest.fixture
def server(hub: Hub, files: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", "")
    for name, value in LIMITS.items():
        monkeypatch.setenv(f"HEMAZOO_{name}", value)
    hub.put("alice/one", files)
    hub.put("alice/two", files)
    return hub


def listed() -> dict[str, Any]:
    return {entry.id: entry for entry in HubSource("alice").entries()}


async def endless() -> AsyncIterator[bytes]:
    """More than is ever read; it ends, so that the server can stop."""
    for _ in range(1000):
        yield b" " * 65_536
        await asyncio.sleep(0.001)


async def dripping() -> AsyncIterator[bytes]:
    for _ in range(30):
        yield b" "
        await asyncio.sleep(0.2)


def stream(body: Callable[[], AsyncIterator[bytes]], **headers: str) -> Callable:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(body(), headers=headers)(scope, receive, send)

    return answer


def same(response: Callable[[], Response]) -> Callable:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await response()(scope, receive, send)

    return answer


def lie_about(server: Hub, name: str, **stated: Any) -> None:
    """State another size or digest of a file than it has."""
    repo = server.repos["models", "alice/one"]
    commit = repo.at("main")
    told = replace(commit.files[name], **stated)
    server.blobs.setdefault(told.oid, server.blobs[commit.files[name].oid])
    repo.commits[commit.sha] = replace(commit, files={**commit.files, name: told})


def packed() -> Response:
    return Response(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})


def head(**headers: str) -> Callable:
    return same(lambda: Response(headers={"X-Repo-Commit": "0" * 40, "ETag": '"x"', "Content-Length": "9", **headers}))


# lies of the interface, about alice/one; alice/two is told truly
ANSWERS: dict[str, tuple[Callable, str]] = {
    "endless": (stream(endless), "more than the 1,000,000 bytes"),
    "dripping": (stream(dripping), "longer than 1.5 seconds"),
    "large by its own account": (stream(dripping, **{"content-length": "99999999"}), "99,999,999 bytes"),
    "packed": (same(packed), "packed answer"),
    "sent elsewhere": (same(lambda: RedirectResponse("http://elsewhere.invalid/x")), "sends on to elsewhere.invalid"),
    "sent to the machine's own network": (
        same(lambda: RedirectResponse("http://169.254.169.254/latest")), "sends on to 169.254.169.254",
    ),
    "sent in a circle": (
        same(lambda: RedirectResponse("/api/models/alice/one/revision/x")), "cannot be reached|refused",
    ),
    "to wait for a year": (
        same(lambda: JSONResponse({}, 429, headers={"Retry-After": "31536000"})), "rate limit.*31536000 seconds",
    ),
    "a commit by a path": (
        same(lambda: JSONResponse({}, 404, headers={"X-Repo-Commit": "../../../x"})), "by no digest",
    ),
    "another commit": (
        same(lambda: JSONResponse({"id": "alice/one", "sha": "f" * 40, "siblings": []})), "another commit",
    ),
    "no JSON": (same(lambda: Response(b"<html>")), "unknown format|refused"),
    "a list": (same(lambda: JSONResponse([1, 2])), "unknown format"),
    "no numbers": (
        same(lambda: JSONResponse({"id": "alice/one", "sha": 3, "siblings": [{"rfilename": 7, "size": "x"}]})),
        "unknown format",
    ),
    "thousands of files": (
        same(
            lambda: JSONResponse(
                {
                    "id": "alice/one", "sha": "0" * 40,
                    "siblings": [
                        {"rfilename": f"predictions/{n}.parquet", "size": 1, "blobId": "0" * 40} for n in range(3000)
                    ],
                }
            )
        ),
        "lists 3,000 files of an entry; at most 20",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_lie_about_one_model_is_told_and_the_others_are_listed(server, name):
    answer, said = ANSWERS[name]
    server.faults.append(Fault("GET /api/models/alice/one", 10**6, answer=answer))
    found = listed()
    assert isinstance(found["alice--one"], BrokenEntry)
    assert found["alice--two"].usable
    with pytest.raises(EntryError, match=said):
        raise EntryError(found["alice--one"].reason)


# lies about the weights of alice/one, told before or while they are fetched
FILES: dict[str, tuple[Callable[[Hub], Any], str]] = {
    "smaller than it is": (lambda h: lie_about(h, WEIGHTS, size=1000), "more than|damaged|bytes"),
    "larger than it is": (lambda h: lie_about(h, WEIGHTS, size=10_000_000), "damaged twice|Consistency|size"),
    "of another digest": (lambda h: lie_about(h, WEIGHTS, oid="0" * 64), "damaged twice"),
    "endless": (lambda h: h.faults.append(Fault("GET /cdn", 99, answer=stream(endless))), "more than the .* bytes"),
    "dripping": (lambda h: h.faults.append(Fault("GET /cdn", 99, answer=stream(dripping))), "longer than .* seconds"),
    "packed": (lambda h: h.faults.append(Fault("GET /cdn", 99, answer=same(packed))), "packed answer"),
    "elsewhere": (
        lambda h: h.faults.append(
            Fault("GET /cdn", 99, answer=same(lambda: RedirectResponse("http://elsewhere.invalid/x"))),
        ),
        "sends on to elsewhere.invalid",
    ),
    "cut again and again": (lambda h: h.faults.append(Fault("GET /cdn", 10**6, cut_after=2000)), "longer than|damaged"),
    "another than listed": (
        lambda h: h.faults.append(Fault("HEAD .*safetensors", 99, answer=head())), "another file than it listed",
    ),
    "named by a path": (
        lambda h: h.faults.append(Fault("HEAD .*safetensors", 99, answer=head(ETag='"../../../escaped"'))),
        "by no digest",
    ),
    "of a commit that is a path": (
        lambda h: h.faults.append(Fault("HEAD .*safetensors", 99, answer=head(**{"X-Repo-Commit": "../../escaped"}))),
        "by no digest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_lie_about_a_file_leaves_no_file(server, tmp_path, name):
    lie, said = FILES[name]
    lie(server)
    one = listed()["alice--one"]
    with pytest.raises(EntryError, match=said):
        zoo_hub.fetch(one)
    assert not (one.folder / WEIGHTS).exists()
    assert not list(tmp_path.rglob("*escaped*"))
    server.faults.clear()
    zoo_hub.reset()
    again = listed()["alice--one"]
    assert not (again.folder / WEIGHTS).exists()
    assert zoo_hub.fetch(listed()["alice--two"]).usable


def test_a_model_whose_config_is_endless_is_broken(server):
    server.faults.append(Fault("GET /alice/one/resolve/.*/config.json", 99, answer=stream(endless)))
    found = listed()
    assert "more than the" in found["alice--one"].reason
    assert found["alice--two"].usable


def test_pages_without_end_are_not_followed(server):
    more = same(lambda: JSONResponse([], headers={"Link": f'<{server.url}/api/models?cursor=1>; rel="next"'}))
    server.faults.append(Fault("GET /api/models$", 10**6, answer=more))
    (entry,) = HubSource("alice").entries()
    assert "longer than 1.5 seconds" in entry.reason or "more than 1,000 requests" in entry.reason


def test_names_that_are_paths_are_not_listed(server):
    record = {"sha": "0" * 40, "siblings": [], "tags": ["hemazoo"]}
    names = [{**record, "id": "../../etc"}, {**record, "id": "alice/one", "sha": "../../x"}]
    server.faults.append(Fault("GET /api/models$", 99, answer=same(lambda: JSONResponse(names))))
    (entry,) = HubSource("alice").entries()
    assert "holds no model" in entry.reason


def test_a_listing_has_a_ceiling_of_bytes(server, monkeypatch):
    size = len(json.dumps({"a": "b" * 600_000}))
    for number in range(4):
        server.put(f"alice/large{number}", {**server_files(server), "evaluation.json": b'{"x": "%s"}' % (b"b" * size)})
    monkeypatch.setenv("HEMAZOO_HUB_LISTING_MB", "1")
    found = listed()
    assert len(found) == 6
    assert any("more bytes than are read" in entry.reason for entry in found.values() if isinstance(entry, BrokenEntry))


def server_files(server: Hub) -> dict[str, bytes | None]:
    commit = server.repos["models", "alice/two"].at("main")
    return {name: server.blobs[stored.oid] for name, stored in commit.files.items()}


def test_the_owner_names_further_hosts(server, monkeypatch):
    away = same(lambda: RedirectResponse("http://files.invalid/x"))
    server.faults.append(Fault("GET /cdn", 99, answer=away))
    one = listed()["alice--one"]
    with pytest.raises(EntryError, match=r"files\.invalid.*HEMAZOO_HUB_HOSTS"):
        zoo_hub.fetch(one)
    monkeypatch.setenv("HEMAZOO_HUB_HOSTS", "files.invalid")
    with pytest.raises(EntryError, match=r"cannot be reached|longer than"):
        zoo_hub.fetch(one)
