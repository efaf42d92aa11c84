"""A Hugging Face Hub on this computer, for tests and `make demo-hub`: the protocol that huggingface_hub speaks.

Repositories live in memory: commits are files by path, weights and the like are kept once by their SHA-256, as the
Hub's LFS does. What a test wants to go wrong is said in `Hub.faults`. Routes and their pitfalls as huggingface_hub
2.4 uses them (https://huggingface.co/docs/hub/api).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
LARGE = {".safetensors", ".skops", ".parquet", ".png", ".bin", ".jpg"}
PAGE = 50
HEX = re.compile(r"[0-9a-f]{7,40}")


class HubError(Exception):
    """An answer with the Hub's error headers."""

    def __init__(self, status: int, message: str, code: str = "", body: Any = None) -> None:
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class Stored:
    """A file of a commit: git's blob id, or the SHA-256 of one that is kept as LFS."""

    oid: str
    size: int
    large: bool

    def told(self, path: str) -> dict[str, Any]:
        """As the tree and paths-info routes tell it."""
        found: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.blob}
        return found | ({"lfs": {"oid": self.oid, "size": self.size, "pointerSize": 134}} if self.large else {})

    @property
    def blob(self) -> str:
        """Git's id of what is in the tree: the content, or the pointer to it."""
        return self.oid if not self.large else hashlib.sha1(f"pointer {self.oid} {self.size}".encode()).hexdigest()


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    sha: str
    files: Mapping[str, Stored]
    title: str
    author: str
    parent: str | None
    date: str


@dataclass
class Repo:
    """A repository: its commits by sha, branches, tags and pull requests by full reference."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a reference or a sha."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        found = [sha for sha in self.commits if HEX.fullmatch(revision) and sha.startswith(revision)]
        if len(found) == 1:
            return self.commits[found[0]]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Fault:
    """Something that goes wrong `times` times where `METHOD path` matches: a status, a cut or a slow answer."""

    match: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body
    delay: float = 0.0  # seconds before the answer, and again before each of its chunks
    do: Callable[[], None] | None = None  # something that happens just before the answer


class Hub:
    """The server: `url`, its repositories, and what is to go wrong."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.collections: dict[str, list[str]] = {}
        self.blobs: dict[str, bytes] = {}  # by git blob id or SHA-256
        self.faults: list[Fault] = []
        self.log: list[str] = []  # METHOD path, of every request
        self.url = ""
        self.stop: Callable[[], None] = lambda: None  # as a network that is gone
        self._lock = threading.RLock()

    def commit(
        self,
        repo: Repo,
        reference: str,
        changes: Mapping[str, Stored | None],
        title: str,
        author: str,
        parent: str | None = None,
    ) -> str:
        """Put a commit on a reference; None deletes a file. Raises HubError if `parent` is not where it stands."""
        with self._lock:
            head = repo.refs.get(reference)
            if parent and head != parent:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repo.commits[head].files) if head else {}
            for path, stored in changes.items():
                if stored is not None:
                    files[path] = stored
                elif files.pop(path, None) is None:
                    raise HubError(404, f"A file with this name does not exist: {path}", "EntryNotFound")
            listing = json.dumps({path: files[path].oid for path in sorted(files)})
            # commits are numbered, so that the same content committed twice has two ids
            sha = hashlib.sha1(f"{repo.name} {len(repo.commits)} {head} {listing}".encode()).hexdigest()
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            repo.commits[sha] = Commit(sha, files, title, author, head, date)
            repo.refs[reference] = sha
            return sha

    def store(self, path: str, data: bytes, large: bool | None = None) -> Stored:
        """Keep a file's content."""
        large = is_large(path, data[:512], len(data)) if large is None else large
        oid = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.blobs[oid] = data
        return Stored(oid, len(data), large)

    def put(self, name: str, files: Mapping[str, bytes | None], kind: str = "models") -> str:
        """Commit files to a repository's main as if somebody had pushed them, making it if need be; returns the sha."""
        repo = self.repos.setdefault((kind, name), Repo(kind, name))
        changes = {path: None if data is None else self.store(path, data) for path, data in files.items()}
        return self.commit(repo, "refs/heads/main", changes, "by hand", name.split("/", maxsplit=1)[0])

    def count(self, match: str) -> int:
        """How many requests matched, METHOD path."""
        return sum(bool(re.search(match, line)) for line in self.log)


def is_large(path: str, sample: bytes, size: int) -> bool:
    """Whether the Hub keeps a file as LFS."""
    return PurePosixPath(path).suffix in LARGE or size > 10_000_000 or b"\0" in sample


class _Routes:
    """The routes' answers."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def user(self, request: Request) -> str | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if given and given not in TOKENS:
            raise HubError(401, "Invalid credentials in Authorization header")
        return TOKENS.get(given)

    def repo(self, request: Request, write: bool = False) -> Repo:
        """The repository of a request, if who asks may see it."""
        place = request.path_params
        kind, name = place.get("kind", "models"), f"{place['ns']}/{place['name']}"
        user, found = self.user(request), self.hub.repos.get((kind, name))
        if found is None or (found.private and user != place["ns"]):
            # strangers are not told whether it is there
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if found.gated and user != place["ns"] and "/resolve/" in request.url.path:
            raise HubError(403, f"Access to model {name} is restricted.", "GatedRepo")
        if write and user != place["ns"]:
            raise HubError(403 if user else 401, "You have no rights to write to this repository")
        return found

    async def whoami(self, request: Request) -> Response:
        user = self.user(request)
        if not user:
            raise HubError(401, "Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return JSONResponse({"type": "user", "name": user, "fullname": user, "orgs": [], "auth": token})

    async def create(self, request: Request) -> Response:
        body, user = await request.json(), self.user(request)
        namespace, kind = body.get("organization") or user, (body.get("type") or "model") + "s"
        if not user:
            raise HubError(401, "Invalid username or password.")
        if namespace != user:
            raise HubError(403, f"You have no rights to create a repository under {namespace}")
        if not re.fullmatch(r"[\w.-]{1,96}", body["name"]) or re.search(r"\.\.|--", body["name"]):
            raise HubError(400, "Invalid repo name")
        name = f"{namespace}/{body['name']}"
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repos:
            raise HubError(409, "You already created this repo", body={"error": "exists", "url": url})
        repo = Repo(kind, name, private=body.get("visibility") == "private" or bool(body.get("private")))
        self.hub.repos[kind, name] = repo
        first = self.hub.store(".gitattributes", b"*.safetensors filter=lfs\n")
        self.hub.commit(repo, "refs/heads/main", {".gitattributes": first}, "initial commit", user)
        return JSONResponse({"url": url, "name": name})

    async def listing(self, request: Request) -> Response:
        query, user = request.query_params, self.user(request)
        found = []
        for repo in list(self.hub.repos.values()):
            namespace = repo.name.split("/")[0]
            told = self._told(repo, repo.at("main"), True)
            if (
                repo.kind == request.path_params["kind"]
                and (not repo.private or user == namespace)
                and query.get("author", namespace) == namespace
                and query.get("search", "").lower() in repo.name.lower()
                and all(tag in told["tags"] for tag in query.getlist("filter"))
            ):
                found.append(told)
        found.sort(key=lambda told: told["lastModified"], reverse=True)
        start, limit = int(query.get("cursor", 0)), min(int(query.get("limit", PAGE)), PAGE)
        more = f'<{request.url.include_query_params(cursor=start + limit)}>; rel="next"'
        headers = {"Link": more} if start + limit < len(found) else {}
        return JSONResponse(found[start : start + limit], headers=headers)

    async def info(self, request: Request) -> Response:
        repo = self.repo(request)
        blobs = request.query_params.get("blobs", "").lower() in ("true", "1")
        return JSONResponse(self._told(repo, repo.at(request.path_params.get("rev", "main")), blobs))

    def _told(self, repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
        card = self._card(commit)
        names = [card["library_name"]] if isinstance(card.get("library_name"), str) else []
        tags = [*names, *(tag for tag in card.get("tags") or [] if isinstance(tag, str))]
        siblings = []
        for path, stored in commit.files.items():
            told = stored.told(path)
            large = {"lfs": {"sha256": stored.oid, "size": stored.size, "pointerSize": 134}} if stored.large else {}
            siblings.append(
                {"rfilename": path} | ({"size": told["size"], "blobId": told["oid"]} | large if blobs else {})
            )
        return {
            "_id": hashlib.md5(repo.name.encode()).hexdigest()[:24],
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.name.split("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": commit.date,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list(dict.fromkeys(tags)),
            "siblings": siblings,
            "cardData": card,
            **self._counted(commit),
        }

    def _counted(self, commit: Commit) -> dict[str, Any]:
        """How many numbers its safetensors hold, as the Hub reads it from the header."""
        stored = commit.files.get("model.safetensors")
        try:
            data = self.hub.blobs[stored.oid] if stored else b""
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            total = sum(math.prod(told["shape"]) for name, told in header.items() if name != "__metadata__")
            return {"safetensors": {"parameters": {"F32": total}, "total": total}}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return {}

    def _card(self, commit: Commit) -> dict[str, Any]:
        stored = commit.files.get("README.md")
        try:
            return metadata(self.hub.blobs[stored.oid].decode()) if stored else {}
        except (UnicodeDecodeError, yaml.YAMLError):
            return {}

    async def tree(self, request: Request) -> Response:
        commit = self.repo(request).at(request.path_params["rev"])
        base = request.path_params.get("path", "").strip("/")
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        inside = {path: stored for path, stored in commit.files.items() if not base or path.startswith(f"{base}/")}
        depth = base.count("/") + 2 if base else 1
        folders = {"/".join(path.split("/")[:n]) for path in inside for n in range(depth, path.count("/") + 1)}
        told = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in folders]
        told += [stored.told(path) for path, stored in inside.items()]
        if base and not told:
            raise HubError(404, f"{base} does not exist", "EntryNotFound")
        shown = [one for one in told if recursive or one["path"].count("/") < depth]
        return JSONResponse(sorted(shown, key=lambda one: one["path"]))

    async def paths(self, request: Request) -> Response:
        commit = self.repo(request).at(request.path_params["rev"])
        kind = request.headers.get("content-type", "")
        body = await request.json() if "json" in kind else await request.form()
        wanted = body["paths"] if isinstance(body, dict) else body.getlist("paths")
        return JSONResponse([commit.files[path].told(path) for path in wanted if path in commit.files])

    async def refs(self, request: Request) -> Response:
        repo = self.repo(request)
        told: dict[str, list] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for ref, sha in repo.refs.items():
            _, kind, name = ref.split("/", 2)
            place = {"heads": "branches", "tags": "tags"}.get(kind, "pullRequests")
            told[place].append({"name": name, "ref": ref, "targetCommit": sha})
        return JSONResponse(told)

    async def history(self, request: Request) -> Response:
        repo = self.repo(request)
        commit: Commit | None = repo.at(request.path_params["rev"])
        told = []
        while commit:
            author = [{"user": commit.author}]
            told.append(
                {"id": commit.sha, "title": commit.title, "message": "", "authors": author, "date": commit.date}
            )
            commit = repo.commits.get(commit.parent or "")
        return JSONResponse(told)

    async def collection(self, request: Request) -> Response:
        slug = f"{request.path_params['ns']}/{request.path_params['slug']}"
        if slug not in self.hub.collections:
            raise HubError(404, "Collection not found")
        items = [
            {"_id": f"{number:024x}", "id": name, "type": "model", "repoType": "model", "position": number}
            for number, name in enumerate(self.hub.collections[slug])
        ]
        owner = {"name": request.path_params["ns"], "type": "user"}
        return JSONResponse(
            {
                "slug": slug,
                "title": slug,
                "owner": owner,
                "items": items,
                "lastUpdated": "2026-01-01T00:00:00.000Z",
                "position": 0,
                "private": False,
                "theme": "blue",
                "upvotes": 0,
            }
        )

    async def resolve(self, request: Request) -> Response:
        commit, path = self.repo(request).at(request.path_params["rev"]), request.path_params["path"]
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound")
        stored = commit.files[path]
        if stored.large:
            headers |= {"X-Linked-Etag": f'"{stored.oid}"', "X-Linked-Size": str(stored.size)}
            # must leave the origin: the client would follow the HEAD, and lose the commit
            away = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{stored.oid}"
            return RedirectResponse(away, 302, headers=headers)
        return _content(request, self.hub.blobs[stored.oid], headers | {"ETag": f'"{stored.oid}"'})

    async def cdn(self, request: Request) -> Response:
        oid = request.path_params["oid"]
        return _content(request, self.hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    async def preupload(self, request: Request) -> Response:
        repo, body, told = self.repo(request, True), await request.json(), []
        files = repo.at(request.path_params["rev"]).files
        for one in body["files"]:
            large = is_large(one["path"], base64.b64decode(one.get("sample", "")), one["size"])
            known = {"oid": files[one["path"]].oid} if one["path"] in files else {}
            mode = "lfs" if large else "regular"
            told.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False} | known)
        return JSONResponse({"files": told})

    async def batch(self, request: Request) -> Response:
        repo, body, told = self.repo(request, True), await request.json(), []
        for one in body["objects"]:
            actions = {}
            if one["oid"] not in self.hub.blobs:
                place = "" if repo.kind == "models" else f"{repo.kind}/"
                verify = {"href": f"{self.hub.url}/{place}{repo.name}.git/info/lfs/verify", "header": {}}
                upload = {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}
                actions = {"actions": {"upload": upload, "verify": verify}}
            told.append({"oid": one["oid"], "size": one["size"]} | actions)
        return JSONResponse({"transfer": "basic", "objects": told}, media_type="application/vnd.git-lfs+json")

    async def upload(self, request: Request) -> Response:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != request.path_params["oid"]:
            raise HubError(400, "sha256 mismatch")
        self.hub.blobs[request.path_params["oid"]] = data
        return Response()

    async def verify(self, request: Request) -> Response:
        body = await request.json()
        if len(self.hub.blobs.get(body["oid"], b"")) != body["size"]:
            raise HubError(404, "object missing")
        return JSONResponse({})

    async def push(self, request: Request) -> Response:
        repo, revision = self.repo(request, True), request.path_params["rev"]
        head: dict[str, Any] = {}
        changes: dict[str, Stored | None] = {}
        for line in (await request.body()).splitlines():
            told = json.loads(line)
            key, value = told["key"], told["value"]
            if key == "header":
                head = value
            elif key == "file":
                changes[value["path"]] = self.hub.store(value["path"], base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                changes[value["path"]] = Stored(value["oid"], len(self.hub.blobs[value["oid"]]), True)
            elif key == "deletedFile":
                changes[value["path"]] = None
        reference, more = f"refs/heads/{revision}", {}
        if request.query_params.get("create_pr") == "1":
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            reference = f"refs/pr/{number}"
            repo.refs[reference] = repo.at(revision).sha
            more = {"pullRequestUrl": f"{self.hub.url}/{repo.name}/discussions/{number}"}
        user = self.user(request) or ""
        sha = self.hub.commit(repo, reference, changes, head["summary"], user, head.get("parentCommit"))
        url = f"{self.hub.url}/{repo.name}/commit/{sha}"
        return JSONResponse({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""} | more)

    async def validate(self, request: Request) -> Response:
        """The rules of the Hub's cards that a model of ours could break."""
        try:
            told = metadata((await request.json())["content"])
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": f"YAML: {error}"}], "warnings": []}, 400)
        kinds = {"tags": list, "license": (str, list), "pipeline_tag": str, "library_name": str, "model-index": list}
        wrong = [key for key, kind in kinds.items() if key in told and not isinstance(told[key], kind)]
        for one in told.get("model-index") or []:
            for result in one.get("results", [{}]):
                wrong += [f"model-index {part}" for part in ("task", "dataset", "metrics") if not result.get(part)]
        if isinstance(told.get("license"), str) and not re.fullmatch(r"[a-z0-9.-]+", told["license"]):
            wrong.append("license")  # the Hub knows a list of them
        errors = [{"message": f'"{key}" is missing or of the wrong type'} for key in wrong]
        warnings = [] if told else [{"message": "empty or missing yaml metadata in repo card"}]
        return JSONResponse({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    async def tag(self, request: Request) -> Response:
        repo, body = self.repo(request, True), await request.json()
        if f"refs/tags/{body['tag']}" in repo.refs:
            raise HubError(409, "Tag reference exists already")
        repo.refs[f"refs/tags/{body['tag']}"] = repo.at(request.path_params["rev"]).sha
        return JSONResponse({})

    async def untag(self, request: Request) -> Response:
        if self.repo(request, True).refs.pop(f"refs/tags/{request.path_params['rev']}", None) is None:
            raise HubError(404, "no such tag", "RevisionNotFound")
        return JSONResponse({})

    async def hardware(self, request: Request) -> Response:
        self.repo(request, True)
        body = await request.json()
        stage = {"stage": "BUILDING", "hardware": {"current": None, "requested": body.get("flavor")}, "gcTimeout": None}
        return JSONResponse(stage)

    async def variables(self, request: Request) -> Response:
        self.repo(request, True)
        body = await request.json()
        return JSONResponse({body["key"]: {"value": body["value"]}})


def metadata(text: str) -> dict[str, Any]:
    """The YAML block at a card's head."""
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    told = yaml.safe_load(found[1]) if found else None
    return told if isinstance(told, dict) else {}


def _content(request: Request, data: bytes, headers: Mapping[str, str]) -> Response:
    """A file's content, or the range of it that is asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not asked:
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        return Response(data, headers=dict(headers), media_type="application/octet-stream")
    start, end = int(asked[1]), int(asked[2] or len(data) - 1)
    told = {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], 206, headers=told, media_type="application/octet-stream")


class _Faults:
    """Around all routes: writes the log, keeps `%2F` inside one part of a path, and makes go wrong what is to."""

    def __init__(self, app: Callable, hub: Hub) -> None:
        self.app, self.hub = app, hub

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        raw = scope["raw_path"].decode().split("?")[0]
        line = f"{scope['method']} {raw}"
        self.hub.log.append(line)
        fault = next((f for f in self.hub.faults if f.times > 0 and re.search(f.match, line)), None)
        if fault:
            fault.times -= 1
            if fault.do:
                fault.do()
            await asyncio.sleep(fault.delay)
            if fault.status:
                answer = JSONResponse({"error": "as asked for"}, fault.status, headers=dict(fault.headers))
                return await answer(scope, receive, send)
        sent = 0

        async def guarded(message: dict[str, Any]) -> None:
            nonlocal sent
            body = message.get("body", b"")
            if fault and message["type"] == "http.response.body" and fault.delay:
                # in pieces, with a pause before each
                for start in range(0, len(body), 65536):
                    await asyncio.sleep(fault.delay)
                    await send({**message, "body": body[start : start + 65536], "more_body": True})
                return await send({**message, "body": b""})
            if fault and fault.cut_after is not None and body:
                await send({**message, "body": body[: fault.cut_after - sent], "more_body": True})
                raise ConnectionResetError("cut, as asked for")
            sent += len(body)
            await send(message)

        await self.app({**scope, "path": raw}, receive, guarded)


def _unquoted(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def asked(request: Request) -> Response:
        request.scope["path_params"] = {key: unquote(value) for key, value in request.path_params.items()}
        return await answer(request)

    return asked


async def _refuse(_: Request, error: HubError) -> Response:
    headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse(error.body or {"error": error.message}, error.status, headers=headers)


def application(hub: Hub) -> Callable:
    """The server's routes as an ASGI application."""
    answers, api, repo = _Routes(hub), "/api/{kind}", "/api/{kind}/{ns}/{name}"
    table: list[tuple[str, str, Callable]] = [
        ("GET", "/api/whoami-v2", answers.whoami),
        ("POST", "/api/repos/create", answers.create),
        ("POST", "/api/validate-yaml", answers.validate),
        ("GET", "/api/collections/{ns}/{slug}", answers.collection),
        ("POST", repo + "/preupload/{rev}", answers.preupload),
        ("POST", repo + "/commit/{rev}", answers.push),
        ("GET", repo + "/revision/{rev}", answers.info),
        ("GET", repo + "/tree/{rev}/{path:path}", answers.tree),
        ("GET", repo + "/tree/{rev}", answers.tree),
        ("POST", repo + "/paths-info/{rev}", answers.paths),
        ("GET", repo + "/refs", answers.refs),
        ("GET", repo + "/commits/{rev}", answers.history),
        ("POST", repo + "/tag/{rev}", answers.tag),
        ("DELETE", repo + "/tag/{rev}", answers.untag),
        ("POST", repo + "/hardware", answers.hardware),
        ("POST", repo + "/variables", answers.variables),
        ("GET", repo, answers.info),
        ("GET", api, answers.listing),
        ("PUT", "/lfs/{oid}", answers.upload),
        ("GET", "/cdn/{oid}", answers.cdn),
    ]
    for place in ("/{kind}", ""):
        table += [
            ("POST", place + "/{ns}/{name}.git/info/lfs/objects/batch", answers.batch),
            ("POST", place + "/{ns}/{name}.git/info/lfs/verify", answers.verify),
            ("GET", place + "/{ns}/{name}/resolve/{rev}/{path:path}", answers.resolve),
        ]
    routes = [Route(path, _unquoted(answer), methods=[method]) for method, path, answer in table]
    return _Faults(Starlette(routes=routes, exception_handlers={HubError: _refuse}), hub)


@contextmanager
def serve(port: int = 0) -> Iterator[Hub]:
    """A Hub on a free port of this computer, while the block lasts."""
    hub = Hub()
    config = uvicorn.Config(application(hub), host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        if not thread.is_alive():
            raise RuntimeError(f"Port {port} is taken.")
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def stop() -> None:
        server.should_exit = True
        thread.join(10)

    hub.stop = stop
    try:
        yield hub
    finally:
        stop()
