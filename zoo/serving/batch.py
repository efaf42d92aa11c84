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
from zoo.serving.engine import Caller, Ticket
from zoo.serving.runtime import Prediction, Runtime

READERS = min(8, 2 * (os.cpu_count() or 1))
IN_FLIGHT = 3  # batches read ahead of the one the model works on


@dataclass(frozen=True)
class Result:
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
    caller: Caller | None = None,
) -> Iterator[Result]:
    """Classify (name, content or path or source) pairs, yielding a Result each, in order, as they come.

    A file that cannot be decoded yields a Result with an error and stops nothing. Raises EntryError if the model cannot
    be loaded and BusyError if its queue stays full.
    """
    runtime.load(entry)
    ahead = IN_FLIGHT * runtime.batch_size

    def prepare(content: bytes | Path | Source) -> tuple[Image.Image | None, Ticket]:
        image = decode(content) if isinstance(content, bytes | Path) else content.image()
        return (image if keep_images else None), runtime.submit(entry, image, caller=caller)

    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[str, Future[tuple[Image.Image | None, Ticket]]]] = deque()
        try:
            for name, content in files:
                waiting.append((name, pool.submit(prepare, content)))
                if len(waiting) >= ahead:
                    yield _result(runtime, entry, *waiting.popleft())
            while waiting:
                yield _result(runtime, entry, *waiting.popleft())
        finally:
            # a caller that stops listening must not keep the model busy for nobody
            for _, future in waiting:
                future.cancel()


def _result(runtime: Runtime, entry: Entry, name: str, future: Future[tuple[Image.Image | None, Ticket]]) -> Result:
    try:
        image, answer = future.result()
    except ImageError as error:
        return Result(name, None, str(error))
    return Result(name, runtime.prediction(entry, answer.result()), None, image)
