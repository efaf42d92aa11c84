"""Routes of the local Hub that write."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hub.reading import Access
from tests.hub.state import HubError, Repo, Stored, is_large, metadata


class Writing(Access):
    """Answers of the routes that write."""

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

    async def preupload(self, request: Request) -> Response:
        repo, body, described = self.repo(request, True), await request.json(), []
        files = repo.at(request.path_params["rev"]).files
        for one in body["files"]:
            large = is_large(one["path"], base64.b64decode(one.get("sample", "")), one["size"])
            known = {"oid": files[one["path"]].oid} if one["path"] in files else {}
            mode = "lfs" if large else "regular"
            described.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False} | known)
        return JSONResponse({"files": described})

    async def batch(self, request: Request) -> Response:
        repo, body, described = self.repo(request, True), await request.json(), []
        for one in body["objects"]:
            actions = {}
            if one["oid"] not in self.hub.blobs:
                place = "" if repo.kind == "models" else f"{repo.kind}/"
                verify = {"href": f"{self.hub.url}/{place}{repo.name}.git/info/lfs/verify", "header": {}}
                upload = {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}
                actions = {"actions": {"upload": upload, "verify": verify}}
            described.append({"oid": one["oid"], "size": one["size"]} | actions)
        return JSONResponse({"transfer": "basic", "objects": described}, media_type="application/vnd.git-lfs+json")

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
            described = json.loads(line)
            key, value = described["key"], described["value"]
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
            described = metadata((await request.json())["content"])
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": f"YAML: {error}"}], "warnings": []}, 400)
        kinds = {"tags": list, "license": (str, list), "pipeline_tag": str, "library_name": str, "model-index": list}
        wrong = [key for key, kind in kinds.items() if key in described and not isinstance(described[key], kind)]
        for one in described.get("model-index") or []:
            for result in one.get("results", [{}]):
                wrong += [f"model-index {part}" for part in ("task", "dataset", "metrics") if not result.get(part)]
        if isinstance(described.get("license"), str) and not re.fullmatch(r"[a-z0-9.-]+", described["license"]):
            wrong.append("license")  # the Hub knows a list of them
        errors = [{"message": f'"{key}" is missing or of the wrong type'} for key in wrong]
        warnings = [] if described else [{"message": "empty or missing yaml metadata in repo card"}]
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
