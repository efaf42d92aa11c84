"""Loaded models, bounded by bytes; the one that was not used for longest is unloaded first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.lazy import lazy_module
from zoo.serving.engine import return_memory
from zoo.serving.models.loaded import LoadedModel

if TYPE_CHECKING:
    import torch

    from zoo.sources import hub
else:
    torch = lazy_module("torch")
    hub = lazy_module("zoo.sources.hub")

Loader = Callable[[Entry, str, str], LoadedModel]  # entry, device, precision
_Key = tuple[str, int]  # folder, time of the weights' last change: an entry trained again is loaded again


class ModelCache:
    """Loaded models of one device. Safe to share between threads."""

    def __init__(self, device: str, precision: str, max_bytes: int, loader: Loader = LoadedModel) -> None:
        self.device, self.precision, self.max_bytes = device, precision, max_bytes
        self._loader = loader
        self._models: OrderedDict[_Key, Future[LoadedModel]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, entry: Entry) -> LoadedModel:
        """Return an entry's network, loading it if need be.

        Threads that ask for one entry wait for one loading; those that ask for others are not held up by it.

        Raises:
            EntryError: it cannot be loaded.
        """
        if entry.origin is not None:
            entry = hub.fetch(entry)
        key = (_real(entry.folder), _changed_at(entry.folder / WEIGHTS))
        with self._lock:
            place = self._models.get(key)
            known = place is not None
            if place is None:
                place = self._models[key] = Future()
            else:
                self._models.move_to_end(key)
        if known:
            return place.result()
        try:
            place.set_result(self._loader(entry, self.device, self.precision))
        except BaseException as error:
            with self._lock:
                self._models.pop(key, None)
            place.set_exception(error)
            raise
        self._make_room()
        return place.result()

    @property
    def loaded(self) -> list[LoadedModel]:
        """All models that are loaded now, the one that was not used for longest first."""
        with self._lock:
            return [place.result() for place in self._models.values() if _is_loaded(place)]

    def clear(self) -> None:
        """Unload all models."""
        with self._lock:
            self._models.clear()

    def _make_room(self) -> None:
        """Unload the models that were not used for longest; requests queued for them are answered all the same."""
        with self._lock:
            loaded = {key: place.result() for key, place in self._models.items() if _is_loaded(place)}
            total = sum(model.bytes for model in loaded.values())
            # the last one is in use
            for key in list(loaded)[:-1]:
                if total <= self.max_bytes:
                    break
                del self._models[key]
                total -= loaded.pop(key).bytes
        del loaded
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return_memory()


def _is_loaded(place: Future[LoadedModel]) -> bool:
    return place.done() and place.exception() is None


@lru_cache(1024)
def _real(folder: Path) -> str:
    """The folder without links. It is remembered because looking takes a tenth of the time of a small picture."""
    return str(folder.resolve())


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise EntryError(f"{path} cannot be read: {error.strerror}.") from error
