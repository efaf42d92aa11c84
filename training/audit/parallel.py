"""Long work spread over worker processes with a progress bar; a few items are done in this process."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import cv2
import torch
from threadpoolctl import threadpool_limits

from zoo.progress import progress_bar
from zoo.threads import usable_processors

In = TypeVar("In")
Out = TypeVar("Out")


def spread(
    function: Callable[[In], Out],
    items: Sequence[In],
    title: str,
    unit: str,
    start: Callable[..., None],
    arguments: tuple[Any, ...],
    least: int,
    weight: Callable[[In], int] = lambda _: 1,
) -> Iterator[Out]:
    """Call a function for every item in worker processes.

    Args:
        function: Called for each item; it and the items must be picklable.
        items: The items.
        title: Title of the progress bar.
        unit: Its unit.
        start: Called once with `arguments` in every process, before anything else.
        arguments: Of `start`.
        least: Units of work below which everything happens in this process, as new ones take seconds to start.
        weight: Units of work of an item.

    Yields:
        The results, in the order of the items.
    """
    total = sum(map(weight, items))
    workers = min(usable_processors(), len(items))
    with progress_bar(description=title, total=total, unit=unit, disable=not items) as bar:
        if total < least or workers < 2:
            start(*arguments)
            for item in items:
                yield function(item)
                bar.update(weight(item))
            return
        # spawn: a forked process would inherit torch's thread pool in an unusable state
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(start, arguments)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for item, future in zip(items, futures, strict=True):
                    yield future.result()
                    bar.update(weight(item))
            finally:
                # a caller that stops, or Ctrl-C, must not wait for work that nobody wants
                for future in futures:
                    future.cancel()


def _end_with_parent() -> None:
    """End this process with its parent: one that was killed leaves workers that would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _begin(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # one process a core is enough: NumPy's own threads would only wait for each other
    threadpool_limits(1)
    start(*arguments)
