"""The guard before every request: its id, its token, the size of its body, its log line and its figures."""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Sequence

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zoo.limits import REQUEST_MB, UPLOADS_MB, Limit
from zoo.serving.http.errors import REQUEST_ID, error_response, unexpected_response
from zoo.serving.http.metrics import Metrics

LOG = logging.getLogger(__name__)
OPEN_PATHS = ("/health", "/docs", "/openapi.json")  # they need no token: they tell nothing about models or pictures
NO_TOKEN = "This server needs a token: send the header “Authorization: Bearer TOKEN”."
WRONG_HOST = "This server answers only to its own name. Ask for it by the address that it was started with."
TOO_LARGE = "The request is larger than {} MB. Send fewer or smaller pictures."
TOO_MANY = "Other requests fill the memory for uploads. Try again in a minute."
ID_LETTERS = 12


class Guard:
    """ASGI middleware that refuses a request before its body is read, and ends a body that grows too large.

    Log lines have the request's id, method, route, status and time. They have no addresses, names of files or answers.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str], metrics: Metrics) -> None:
        """Put the guard before an app.

        Args:
            app: the app.
            token: what clients must send; None lets everyone in.
            hosts: names by which clients may ask for the server; none: any.
            metrics: where requests are counted.
        """
        self._app, self._token, self._hosts, self._metrics = app, token, hosts, metrics
        self._held = 0  # bytes of the bodies of all requests under way; only the event loop's thread changes it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, start, status, size = uuid.uuid4().hex[:ID_LETTERS], time.monotonic(), 500, 0
        scope.setdefault("state", {})[REQUEST_ID] = identity

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        async def read() -> Message:
            nonlocal size
            message = await receive()
            length = len(message.get("body", b""))
            size, self._held = size + length, self._held + length
            self._check_size(size)
            return message

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, read, answer)
            else:
                await error_response(*refusal, identity)(scope, receive, answer)
        except Exception as error:
            await unexpected_response(error, identity)(scope, receive, answer)
        finally:
            self._held -= size
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - start
            self._metrics.count(route, status, seconds)
            LOG.info("%s %s %s %d %.0f ms", identity, scope["method"], route, status, 1000 * seconds)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence of what is wrong with a request's headers; None if nothing is."""
        headers = Headers(scope=scope)
        if self._hosts and headers.get("host", "").rsplit(":", 1)[0] not in self._hosts:
            return 400, WRONG_HOST
        if not scope["path"].startswith(OPEN_PATHS) and not self._may_enter(headers):
            return 401, NO_TOKEN
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > REQUEST_MB.bytes:
            return 413, TOO_LARGE.format(_text(REQUEST_MB))
        return None

    def _may_enter(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        # in constant time, so that the answer's delay tells nothing about the token
        return secrets.compare_digest(given.strip().encode(), self._token.encode()) and kind.lower() == "bearer"

    def _check_size(self, size: int) -> None:
        """End the reading of a body. Raises HTTPException, which FastAPI answers."""
        if size > REQUEST_MB.bytes:
            raise HTTPException(413, TOO_LARGE.format(_text(REQUEST_MB)))
        if self._held > UPLOADS_MB.bytes:
            raise HTTPException(503, TOO_MANY)


def _text(limit: Limit) -> str:
    return f"{limit.exact:g}"
