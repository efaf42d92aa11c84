"""The routes: POST /classify and /explain, GET /models, /health, /metrics and /docs."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BeforeValidator
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartParser

from zoo.attribution.overlay import overlay
from zoo.entry import AnyEntry, Entry, EntryError, summary
from zoo.files import printable
from zoo.imaging.decode import read_picture
from zoo.limits import REQUEST_FILES, REQUEST_MB
from zoo.scores.sample.samples import Sample, SampleError, find_sample, samples
from zoo.serving.batch import classify_files, pages_of
from zoo.serving.bulk import as_explanation_record, as_record
from zoo.serving.http.errors import PROBLEMS, REQUEST_ID, add_error_handlers
from zoo.serving.http.guard import Guard
from zoo.serving.http.metrics import Metrics
from zoo.serving.requests import Client
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry, list_entries
from zoo.version import __version__

REFRESH_SECONDS = 5.0  # how long a new entry may take to appear
WATCH_SECONDS = 0.2  # between two looks whether the client has gone
DOCS = "/docs"
# the page of the API fetches nothing from elsewhere, and may not
DOCS_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"


Result = TypeVar("Result")
Files = Annotated[list[UploadFile], File(description="One or more pictures")]
OneFile = Annotated[UploadFile, File(description="A picture")]
Model = Annotated[str, Form(description="Id of the model, see /models")]
SampleName = Annotated[str, Form(description="What the pictures are a sample of; empty: by the model's classes")]
Label = Annotated[str | None, Form(alias="class", description="Class to explain; empty: the predicted one")]
Method = Annotated[str | None, Form(description="Method; empty: the model's default")]
Against = Annotated[str | None, Form(description="Show the evidence for the class rather than for this one")]
Opacity = Annotated[float, Form(ge=0, le=1, description="Of the map in the overlay")]
Views = Annotated[
    Literal[0, 1, 2, 4, 8], BeforeValidator(int), Form(description="Views to average; 0: the model's own number")
]


class Service:
    """The engine and the list of entries, which the routes share."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._lock = threading.Lock()
        self._read_at, self._entries = -REFRESH_SECONDS, list[AnyEntry]()

    def entries(self) -> list[AnyEntry]:
        """All entries, read again every few seconds."""
        with self._lock:
            if time.monotonic() - self._read_at >= REFRESH_SECONDS:
                self._entries, self._read_at = list(list_entries()), time.monotonic()
            return self._entries

    def entry(self, name: str, views: Literal[0, 1, 2, 4, 8] = 0) -> Entry:
        """The entry called `name`. Raises HTTPException if it is unknown or cannot be used."""
        try:
            entry = get_entry(name, self.entries())
        except EntryError as error:
            raise HTTPException(404, str(error)) from error
        return entry.with_views(views) if views else entry

    def classify(self, entry: Entry, sample: Sample | None, files: Sequence[UploadFile], client: Client) -> list[Any]:
        """Records of the pictures in some files, as `python -m zoo classify --json` prints them."""
        pictures = []
        for file in files:
            content = file.file.read()
            pictures += [(name, content) for name in pages_of(_name(file), content)]
        return [as_record(one) for one in classify_files(self.runtime, entry, pictures, client=client, sample=sample)]


def make_app(runtime: Runtime, token: str | None = None, hosts: Sequence[str] = ()) -> FastAPI:
    """Make the server's app. It closes the runtime when it ends.

    Args:
        runtime: the engine.
        token: what clients must send; None lets everyone in.
        hosts: names by which clients may ask for the server; none: any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(runtime.close)

    app = FastAPI(
        title="HemaZoo",
        version=__version__,
        description="Classify and explain pictures of blood cells. Not a medical device: research and teaching only.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    MultiPartParser.spool_max_size = REQUEST_MB.bytes  # pictures stay in memory
    metrics = Metrics(runtime)
    app.include_router(_routes(Service(runtime), metrics))
    _add_docs(app)
    add_error_handlers(app)
    app.add_middleware(Guard, token=token, hosts=hosts, metrics=metrics)
    return app


def _routes(service: Service, metrics: Metrics) -> APIRouter:
    # the guard checks the token before the body is read; this tells the page of the API about it
    router = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))])

    @router.post("/classify", responses=PROBLEMS)
    async def classify(
        request: Request, files: Files, model: Model, sample: SampleName = "", views: Views = 0
    ) -> dict[str, Any]:
        """Classify pictures. A file that cannot be read has an `error` in place of its answer."""
        if len(files) > REQUEST_FILES.value:
            raise HTTPException(413, f"A request may have {REQUEST_FILES.value:,} files; this one has {len(files):,}.")

        def work(client: Client) -> dict[str, Any]:
            entry = service.entry(model, views)
            return {"model": entry.id, "results": service.classify(entry, _sample(sample), files, client)}

        return await _watched(request, work)

    @router.post("/explain", responses=PROBLEMS)
    async def explain(
        request: Request,
        file: OneFile,
        model: Model,
        label: Label = None,
        method: Method = None,
        against: Against = None,
        sample: SampleName = "",
        opacity: Opacity = 0.5,
    ) -> dict[str, Any]:
        """Show where the evidence for a class is: `overlay` is a PNG, `map` a NumPy file (.npy), both in base64."""

        def work(client: Client) -> dict[str, Any]:
            entry = service.entry(model)
            picture, name = read_picture(file.file.read(), _name(file)), _name(file)
            explanation = service.runtime.explain(
                entry, picture.image, label, method, against, client=client, sample=_sample(sample)
            )
            drawn = overlay(picture.image, explanation.values, opacity)
            record = as_explanation_record(name, picture.notes, explanation, _png(drawn), _npy(explanation.values))
            return {"model": entry.id, **record}

        return await _watched(request, work)

    @router.get("/models")
    def models() -> list[dict[str, Any]]:
        """All models, as `python -m zoo list --json` prints them."""
        return [dict(summary(entry)) for entry in service.entries()]

    @router.get("/health")
    def health() -> dict[str, Any]:
        """Whether the server works, its version and the number of waiting pictures."""
        return {"status": "ok", "version": __version__, "waiting": service.runtime.waiting()}

    @router.get("/metrics", response_class=Response)
    def figures() -> Response:
        """Figures in the text format of Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _add_docs(app: FastAPI) -> None:
    """Add the page of the API, whose script and style are served from the package swagger-ui-py."""
    app.mount(f"{DOCS}/assets", StaticFiles(directory=_swagger_folder()), "assets")

    @app.get(DOCS, include_in_schema=False)
    def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title="HemaZoo",
            swagger_js_url=f"{DOCS}/assets/swagger-ui-bundle.js",
            swagger_css_url=f"{DOCS}/assets/swagger-ui.css",
            swagger_favicon_url=f"{DOCS}/assets/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # it would send the description to a stranger
        )
        page.headers["Content-Security-Policy"] = DOCS_POLICY
        return page


def _swagger_folder() -> Path:
    """Folder of the page's files, found without importing the package, which imports web frameworks."""
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("swagger-ui-py is not installed", name="swagger_ui")
    return Path(next(iter(spec.submodule_search_locations))) / "static"


async def _watched(request: Request, work: Callable[[Client], Result]) -> Result:
    """Do work in a thread; when the client hangs up, its waiting pictures are dropped."""
    gone = threading.Event()
    client = Client(str(getattr(request.state, REQUEST_ID)), lambda: not gone.is_set())
    task = asyncio.create_task(run_in_threadpool(work, client))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=WATCH_SECONDS)
            if not task.done() and await request.is_disconnected():
                gone.set()
        return task.result()
    finally:
        gone.set()  # also where the server is ended


def _name(file: UploadFile) -> str:
    return printable(file.filename or "picture")


def _sample(name: str) -> Sample | None:
    """The sample of a name of ours, or of a list of kinds; None where none is named. Raises SampleError for others."""
    if name.lower().endswith(".toml"):  # a client may not name files of the server
        raise SampleError(f"A sample is one of {', '.join(samples())}, or a list of kinds.")
    return find_sample(name) if name else None


def _png(image: Image.Image) -> str:
    """A picture as a PNG file in base64."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _npy(values: np.ndarray) -> str:
    """An array as a NumPy file in base64."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
