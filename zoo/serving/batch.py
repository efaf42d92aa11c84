"""Classification of many files at full speed: a few threads decode files while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from zoo.data import Source
from zoo.entry import Entry
from zoo.files import printable
from zoo.imaging.decode import SUFFIXES, Picture, PictureError, list_pages, page_name, read_picture
from zoo.imaging.decode.formats import DICOM, TIFF
from zoo.scores.sample.samples import Sample
from zoo.serving.fields import Asked, ask_about
from zoo.serving.requests import Client, Ticket
from zoo.serving.results import Prediction
from zoo.threads import usable_processors

if TYPE_CHECKING:
    from zoo.detection.detector import Detector
    from zoo.serving.runtime import Runtime

MANY_PAGES = (*TIFF.suffixes, *DICOM.suffixes)  # endings of files that may hold several pictures
ALL_PAGES = "all"  # also each slice of a stack
READER_THREADS = min(8, 2 * usable_processors())  # decoding runs outside Python's lock
PREFETCH_BATCHES = 3  # read ahead of the one that the model works on


@dataclass(frozen=True)
class FileResult:
    """The outcome for one file, or for one white cell of a field.

    Attributes:
        file: its name, printable.
        prediction: the answer; None where there is none.
        error: why there is no answer, a sentence for the user; None where there is one.
        image: the decoded picture, if it was to be kept.
        notes: what reading it assumed, converted or left out ("read as 12 bit").
        cell: number of the white cell in the file, from 1; None for an answer about the picture as a whole.
        box: the cell's left, top, right and bottom in pixels of the picture.
        cells: how many results the file has.
        nothing: sentence in place of an answer for a field without white cells.
    """

    file: str
    prediction: Prediction | None
    error: str | None
    image: Image.Image | None = None
    notes: tuple[str, ...] = ()
    cell: int | None = None
    box: tuple[float, float, float, float] | None = None
    cells: int = 1
    nothing: str | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture that was read, and what was sent to the engine: a ticket for each cell, or one for all of it."""

    image: Image.Image | None
    notes: tuple[str, ...]
    asked: Asked
    tickets: tuple[Ticket, ...]


def find_files(paths: Sequence[Path]) -> list[Path]:
    """List the files named, and all pictures in the folders named, sorted and without hidden ones.

    Inside a folder only the suffix counts: a text file that is called .png is listed, and so is a path that does not
    exist, a pipe or a folder of such a name; classifying these gives an error that names them.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if not p.name.startswith("."))
            files += [p for p in inside if p.suffix.lower() in SUFFIXES]
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def find_pages(names: Iterable[str], page: int | str | None) -> Iterator[str]:
    """Name the pictures in files of several pages.

    Args:
        names: Paths of files.
        page: Number of the page to read of each, ALL_PAGES, or None: all pages, but of a stack its sharpest slice.

    Yields:
        Each name, as `file.tif#page=2` where the file holds several pictures.
    """
    for name in names:
        if isinstance(page, int):
            yield page_name(name, page)
        elif Path(name).suffix.lower() in MANY_PAGES:
            yield from pages_of(name, Path(name), slices=page == ALL_PAGES)
        else:
            yield name


def pages_of(name: str, source: bytes | Path, slices: bool = False) -> list[str]:
    """Name the pictures of one file, given its content or path; with `slices`, those of a stack too."""
    try:
        pages, is_stack = list_pages(source)
    except PictureError:
        return [name]  # reading it gives the error
    return [name] if pages == 1 or (is_stack and not slices) else [page_name(name, n + 1) for n in range(pages)]


def classify_files(
    runtime: Runtime,
    entry: Entry,
    files: Iterable[tuple[str, bytes | Path | Source]],
    keep_images: bool = False,
    client: Client | None = None,
    sample: Sample | None = None,
    detector: Detector | None = None,
) -> Generator[FileResult, None, None]:
    """Classify files, or the white cells in them, with a few threads reading ahead.

    Args:
        runtime: where the model runs.
        entry: which model to use.
        files: pairs of a name and the content, path or source of a picture.
        keep_images: whether results hold the decoded pictures.
        client: who asks.
        sample: what the pictures are of; None for the entry's usual sample.
        detector: finds the cells of fields (see `zoo.serving.fields.ask_about`); None: one answer a picture.

    Yields:
        A result for each file or white cell in it, in order; with an error where a file cannot be decoded. A caller
        that stops iterating cancels what is not answered yet.

    Raises:
        EntryError: the model cannot be loaded.
        SampleError: the sample rules out every class of the entry.
        BusyError: the queue stayed full.
    """
    runtime.load(entry)
    entry.prior_of(sample := sample or entry.default_sample)  # raises before any picture is read
    newest: Future[_Prepared] | None = None
    stopped = False
    asking = client or Client()
    client = replace(
        asking,
        is_active=lambda: not stopped and asking.is_active(),
        # files are read in order: as long as the newest is not, the engine may wait for a full batch
        sends_more=lambda: newest is not None and not newest.done(),
    )

    def prepare(name: str, content: bytes | Path | Source) -> _Prepared:
        asked = ask_about(picture := _read(name, content), detector)
        tickets = tuple(runtime.submit(entry, part, client=client) for part in asked.parts)
        return _Prepared(picture.image if keep_images else None, picture.notes, asked, tickets)

    with ThreadPoolExecutor(READER_THREADS) as pool:
        waiting: deque[tuple[str, Future[_Prepared]]] = deque()
        try:
            for name, content in files:
                newest = pool.submit(prepare, name, content)
                waiting.append((name, newest))
                if len(waiting) >= PREFETCH_BATCHES * runtime.batch_size:
                    yield from _results(runtime, entry, sample, *waiting.popleft())
            while waiting:
                yield from _results(runtime, entry, sample, *waiting.popleft())
        finally:
            stopped = True  # no request is left, or the caller stopped iterating
            for _, future in waiting:
                future.cancel()


def _read(name: str, content: bytes | Path | Source) -> Picture:
    if isinstance(content, bytes):
        return read_picture(content, name)
    return read_picture(content) if isinstance(content, Path) else Picture(content.image())


def _results(
    runtime: Runtime, entry: Entry, sample: Sample, name: str, future: Future[_Prepared]
) -> Iterator[FileResult]:
    file = printable(name)
    try:
        prepared = future.result()
    except PictureError as error:
        yield FileResult(file, None, str(error))
        return
    notes, asked = prepared.notes, prepared.asked
    if asked.nothing:
        yield FileResult(file, None, None, prepared.image, notes, nothing=asked.nothing)
    for number, (cell, ticket) in enumerate(zip(asked.cells, prepared.tickets, strict=True), 1):
        prediction = runtime.prediction(entry, ticket.result(), sample)
        place, box = (number, cell.box) if cell else (None, None)
        yield FileResult(file, prediction, None, prepared.image, notes, place, box, cells=len(asked.cells))
