"""How is a folder of files classified at full speed? Files are decoded by a few threads while the model works."""

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

READER_THREADS = min(8, 2 * (os.cpu_count() or 1))
PREFETCH_BATCHES = 3  # batches read ahead of the one the model works on


@dataclass(frozen=True)
class FileResult:
    """One file's outcome: a prediction, or the sentence why there is none. `image` is what the model saw, if kept."""

    file: str
    prediction: Prediction | None
    error: str | None
    image: Image.Image | None = None


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files named, and all pictures in folders named, sorted; hidden ones are left out.

    Inside a folder only the suffix counts: a text file that calls itself .png is found, and fails by name. So is a path
    that does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            found += [p for p in inside if p.suffix.lower() in SUFFIXES]
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def classify_files(
    runtime: Runtime,
    entry: Entry,
    files: Iterable[tuple[str, bytes | Path | Source]],
    keep_images: bool = False,
    client: Client | None = None,
) -> Iterator[FileResult]:
    """Classify (name, content or path or source) pairs, yielding a FileResult each, in order, as they come.

    A file that cannot be decoded yields a result with an error and stops nothing. Raises EntryError if the model cannot
    be loaded and BusyError if its queue stays full.
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
            # a client that stops listening must not keep the model busy for nobody
            for _, future in waiting:
                future.cancel()


def _result(runtime: Runtime, entry: Entry, name: str, future: Future[tuple[Image.Image | None, Ticket]]) -> FileResult:
    try:
        image, answer = future.result()
    except ImageError as error:
        return FileResult(name, None, str(error))
    return FileResult(name, runtime.prediction(entry, answer.result()), None, image)
