"""Errors as JSON of one shape: `{"error": sentence, "request": id}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from zoo.attribution import ExplanationError
from zoo.entry import EntryError
from zoo.imaging.decode import PictureError
from zoo.limits import LimitError
from zoo.scores.sample.samples import SampleError
from zoo.serving.requests import BusyError, StoppedError

LOG = logging.getLogger(__name__)
REQUEST_ID = "request_id"  # key of the request's state, set by the guard
RETRY_SECONDS = "30"
STATUS: Mapping[type[Exception], int] = {
    EntryError: 422,
    SampleError: 422,
    PictureError: 422,
    ExplanationError: 422,
    BusyError: 503,
    StoppedError: 503,
    CancelledError: 503,
    LimitError: 500,
}


class Problem(BaseModel):
    """The shape of every error: a sentence, and the id under which the server's log has the request."""

    error: str
    request: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong"},
    404: {"model": Problem, "description": "There is no such model"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "The request, or its picture, cannot be used"},
    503: {"model": Problem, "description": "The server is busy"},
}
PLAIN = ("Not Found", "Method Not Allowed")  # what the router says
NO_ROUTE = "There is nothing at this address for this method. /docs shows what there is."
FAILED = "The server could not answer because of an error of its own. Its log has the details under this request's id."


def error_response(status: int, sentence: str, request_id: str) -> JSONResponse:
    """Make the JSON response of an error."""
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": sentence, "request": request_id}, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Let an app answer every error in the one shape."""

    def expected(request: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
        return error_response(status, str(error) or "The request was cancelled.", _id(request))

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        sentence = NO_ROUTE if error.detail in PLAIN else str(error.detail)
        return error_response(error.status_code, sentence, _id(request))

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        parts = (f"{one['loc'][-1]}: {one['msg'][:1].lower()}{one['msg'][1:]}" for one in error.errors())
        return error_response(422, f"The request is not valid. {'; '.join(parts)}.", _id(request))

    for kind in STATUS:
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def unexpected_response(error: Exception, request_id: str) -> JSONResponse:
    """Log an error that nobody expected and make its response.

    The log has where it happened and its kind, not its message, which may name a file.
    """
    where, trace = "?", error.__traceback__
    while trace is not None:
        where, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
    LOG.error("%s failed: %s at %s", request_id, type(error).__name__, where)
    return error_response(500, FAILED, request_id)


def _id(request: Request) -> str:
    return str(getattr(request.state, REQUEST_ID, ""))
