"""Routes of the local Hub that read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.hub.state import PAGE, TOKENS, Commit, Hub, HubError, Repo, metadata


class Access:
    """The user of a request, and the repositories that the user may see and write."""

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
            # others do not learn whether it exists
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if found.gated and user != place["ns"] and "/resolve/" in request.url.path:
            raise HubError(403, f"Access to model {name} is restricted.", "GatedRepo")
        if write and user != place["ns"]:
            raise HubError(403 if user else 401, "You have no rights to write to this repository")
        return found


class Reading(Access):
    """Answers of the routes that read."""

    async def whoami(self, request: Request) -> Response:
        user = self.user(request)
        if not user:
            raise HubError(401, "Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return JSONResponse({"type": "user", "name": user, "fullname": user, "orgs": [], "auth": token})

    async def listing(self, request: Request) -> Response:
        query, user = request.query_params, self.user(request)
        found = []
        for repo in list(self.hub.repos.values()):
            namespace = repo.name.split("/")[0]
            described = self._info(repo, repo.at("main"), True)
            if (
                repo.kind == request.path_params["kind"]
                and (not repo.private or user == namespace)
                and query.get("author", namespace) == namespace
                and query.get("search", "").lower() in repo.name.lower()
                and all(tag in described["tags"] for tag in query.getlist("filter"))
            ):
                found.append(described)
        found.sort(key=lambda described: described["lastModified"], reverse=True)
        start, limit = int(query.get("cursor", 0)), min(int(query.get("limit", PAGE)), PAGE)
        more = f'<{request.url.include_query_params(cursor=start + limit)}>; rel="next"'
        headers = {"Link": more} if start + limit < len(found) else {}
        return JSONResponse(found[start : start + limit], headers=headers)

    async def info(self, request: Request) -> Response:
        repo = self.repo(request)
        blobs = request.query_params.get("blobs", "").lower() in ("true", "1")
        return JSONResponse(self._info(repo, repo.at(request.path_params.get("rev", "main")), blobs))

    def _info(self, repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
        card = self._card(commit)
        names = [card["library_name"]] if isinstance(card.get("library_name"), str) else []
        tags = [*names, *(tag for tag in card.get("tags") or [] if isinstance(tag, str))]
        siblings = []
        for path, stored in commit.files.items():
            described = stored.as_json(path)
            large = {"lfs": {"sha256": stored.oid, "size": stored.size, "pointerSize": 134}} if stored.large else {}
            siblings.append(
                {"rfilename": path} | ({"size": described["size"], "blobId": described["oid"]} | large if blobs else {})
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
            **self._parameters(commit),
        }

    def _parameters(self, commit: Commit) -> dict[str, Any]:
        """Number of parameters in the safetensors file, from its header."""
        stored = commit.files.get("model.safetensors")
        try:
            data = self.hub.blobs[stored.oid] if stored else b""
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            total = sum(math.prod(described["shape"]) for name, described in header.items() if name != "__metadata__")
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
        described = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in folders]
        described += [stored.as_json(path) for path, stored in inside.items()]
        if base and not described:
            raise HubError(404, f"{base} does not exist", "EntryNotFound")
        shown = [one for one in described if recursive or one["path"].count("/") < depth]
        return JSONResponse(sorted(shown, key=lambda one: one["path"]))

    async def paths(self, request: Request) -> Response:
        commit = self.repo(request).at(request.path_params["rev"])
        kind = request.headers.get("content-type", "")
        body = await request.json() if "json" in kind else await request.form()
        wanted = body["paths"] if isinstance(body, dict) else body.getlist("paths")
        return JSONResponse([commit.files[path].as_json(path) for path in wanted if path in commit.files])

    async def refs(self, request: Request) -> Response:
        repo = self.repo(request)
        described: dict[str, list] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for ref, sha in repo.refs.items():
            _, kind, name = ref.split("/", 2)
            place = {"heads": "branches", "tags": "tags"}.get(kind, "pullRequests")
            described[place].append({"name": name, "ref": ref, "targetCommit": sha})
        return JSONResponse(described)

    async def history(self, request: Request) -> Response:
        repo = self.repo(request)
        commit: Commit | None = repo.at(request.path_params["rev"])
        described = []
        while commit:
            author = [{"user": commit.author}]
            described.append(
                {"id": commit.sha, "title": commit.title, "message": "", "authors": author, "date": commit.date}
            )
            commit = repo.commits.get(commit.parent or "")
        return JSONResponse(described)

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


def _content(request: Request, data: bytes, headers: Mapping[str, str]) -> Response:
    """A file's content, or the range of it that is asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not asked:
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        return Response(data, headers=dict(headers), media_type="application/octet-stream")
    start, end = int(asked[1]), int(asked[2] or len(data) - 1)
    more = {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], 206, headers=more, media_type="application/octet-stream")
