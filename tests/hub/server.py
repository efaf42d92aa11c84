"""HTTP server of the local Hub."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.reading import Reading
from tests.hub.state import Hub, HubError
from tests.hub.writing import Writing


class _Answers(Reading, Writing):
    """Answers of all routes."""


class _Faults:
    """Middleware: logs requests, keeps `%2F` inside one part of a path, and applies planned faults."""

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
            if fault.answer:
                return await fault.answer(scope, receive, send)
            await asyncio.sleep(fault.delay)
            if fault.status:
                answer = JSONResponse({"error": "a planned fault"}, fault.status, headers=dict(fault.headers))
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
                raise ConnectionResetError("cut: a planned fault")
            sent += len(body)
            await send(message)

        await self.app({**scope, "path": raw}, receive, guarded)


def _unquoted(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        request.scope["path_params"] = {key: unquote(value) for key, value in request.path_params.items()}
        return await answer(request)

    return answered


async def _refuse(_: Request, error: HubError) -> Response:
    headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse(error.body or {"error": error.message}, error.status, headers=headers)


def application(hub: Hub) -> Callable:
    """The server's routes as an ASGI application."""
    answers, api, repo = _Answers(hub), "/api/{kind}", "/api/{kind}/{ns}/{name}"
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
