"""Classification of many files at full speed: a few threads decode files while the model runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zoo.data import Source
from zoo.entry import Entry
from zoo.imaging.decode import SUFFIXES, ImageError, decode
from zoo.serving.requests import Client, Ticket
from zoo.serving.runtime import Prediction, Runtime

READER_THREADS = min(8, 2 * (os.cpu_count() or 1))  # decoding runs outside Python's lock
PREFETCH_BATCHES = 3  # read ahead of the one that the model works on


@dataclass(frozen=True)
class FileResult:
    """The outcome for one file.

    Attributes:
        file: its name.
        prediction: the answer; None where there is none.
        error: why there is no answer, a sentence for the user; None where there is one.
        image: the decoded picture, if it was to be kept.
    """

    file: str
    prediction: Prediction | None
    error: str | None
    image: Image.Image | None = None


def find_files(paths: Sequence[Path]) -> list[Path]:
    """List the files named, and all pictures in the folders named, sorted and without hidden ones.

    Inside a folder only the suffix counts: a text file that is called .png is listed, and so is a path that does not
    exist; classifying these gives an error that names them.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            files += [p for p in inside if p.suffix.lower() in SUFFIXES]
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def classify_files(
    runtime: Runtime,
    entry: Entry,
    files: Iterable[tuple[str, bytes | Path | Source]],
    keep_images: bool = False,
    client: Client | None = None,
) -> Iterator[FileResult]:
    """Classify files, with a few threads reading ahead.

    Args:
        runtime: where the model runs.
        entry: which model to use.
        files: pairs of a name and the content, path or source of a picture.
        keep_images: whether results hold the decoded pictures.
        client: who asks.

    Yields:
        A result for each file, in order. A file that cannot be decoded gives a result with an error.

    Raises:
        EntryError: the model cannot be loaded.
        BusyError: the queue stayed full.

    Example:
        >>> files = [(path.name, path) for path in find_files([Path("cells")])]
        >>> with zoo.Runtime() as runtime:
        ...     results = list(zoo.classify_files(runtime, zoo.get_entry("cnn60"), files))
    """
    runtime.load(entry)
    ahead = PREFETCH_BATCHES * runtime.batch_size

    def prepare(content: bytes | Path | Source) -> tuple[Image.Image | None, Ticket]:
        image = decode(content) if isinstance(content, bytes | Path) else content.image()
        return (image if keep_images else None), runtime.submit(entry, image, client=client)

    with ThreadPoolExecutor(READER_THREADS) as pool:
        waiting: deque[tuple[str, Future[tuple[Image.Image | None, Ticket]]]] = deque()
        try:
            for name, content in files:
                waiting.append((name, pool.submit(prepare, content)))
                if len(waiting) >= ahead:
                    yield _result(runtime, entry, *waiting.popleft())
            while waiting:
                yield _result(runtime, entry, *waiting.popleft())
        finally:
            # when the caller stops iterating, the rest need not be classified
            for _, future in waiting:
                future.cancel()


def _result(runtime: Runtime, entry: Entry, name: str, future: Future[tuple[Image.Image | None, Ticket]]) -> FileResult:
    try:
        image, answer = future.result()
    except ImageError as error:
        return FileResult(name, None, str(error))
    return FileResult(name, runtime.prediction(entry, answer.result()), None, image)
