"""Choice of the backend of a network: one that gives torch's results, and is not slower.

Classifiers and detectors go the same way; they differ in what is traced, compared and timed.

Both are measured once (`convert`), and remembered together with the converted network (`store`). Using a stored one
imports neither torch nor timm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoo.cache import keep_within
from zoo.entry import Entry
from zoo.files import LockedError, atomic_folder
from zoo.limits import CONVERTED_MB
from zoo.serving.backends import openvino_backend, store
from zoo.serving.backends.compare import TOLERANCE, difference, map_difference
from zoo.serving.backends.maps import ServedMaps
from zoo.serving.backends.served import ServedNetwork
from zoo.serving.backends.store import Choice
from zoo.serving.backends.torch_backend import TorchBackend
from zoo.serving.heads import load_head

if TYPE_CHECKING:
    from torch import nn

    from zoo.serving.backends.convert import TorchSeconds

LOG = logging.getLogger(__name__)
Served = TypeVar("Served")


def serve(
    entry: Entry,
    device: str,
    precision: str,
    wanted: str,
    torch_seconds: TorchSeconds,
) -> ServedNetwork:
    """Put an entry's network behind a backend.

    Args:
        entry: the entry, which is no ensemble.
        device: name of the device on which torch runs it.
        precision: one of PRECISIONS; bf16 is torch's alone.
        wanted: one of BACKENDS; openvino skips the comparison of speeds, not that of results.
        torch_seconds: measures a pass of torch.

    Returns:
        The network. It runs on torch where the other backend is not installed or not for the device, fails, gives other
        results, is slower, or cannot be stored.

    Raises:
        EntryError: the network cannot be built.
    """
    in_torch = _in_torch(entry, device)
    if wanted == "torch" or device != "cpu" or precision == "bf16":
        return ServedNetwork(entry.id, in_torch)

    def judge(folder: Path) -> Choice:
        from zoo.serving.backends.convert import convert_and_judge  # noqa: PLC0415 (imports torch)

        return convert_and_judge(entry, in_torch.module, folder, torch_seconds)

    found = _converted(entry, precision, wanted, judge, lambda folder: _open(entry, folder, device))
    return found or ServedNetwork(entry.id, in_torch)


def serve_maps(entry: Entry, load: Callable[[], nn.Module], wanted: str) -> ServedMaps:
    """Put a detector's network behind a backend, on the CPU.

    Args:
        entry: the detector.
        load: builds its network in torch, in evaluation mode; called where torch is needed.
        wanted: as for `serve`.

    Raises:
        EntryError: the network cannot be built.
    """
    in_torch = TorchBackend(load, "cpu")

    def judge(folder: Path) -> Choice:
        from zoo.serving.backends.convert import convert_and_judge_maps  # noqa: PLC0415 (imports torch)

        return convert_and_judge_maps(in_torch.module, folder)

    fast = None if wanted == "torch" else _converted(entry, "fp32", wanted, judge, _open_maps)
    return ServedMaps(entry.id, in_torch, fast)


def _converted(
    entry: Entry, precision: str, wanted: str, judge: Callable[[Path], Choice], opened: Callable[[Path], Served]
) -> Served | None:
    """The result of `opened` for the folder of the converted network; None where torch is to run."""
    if not openvino_backend.is_installed():
        _say_once("OpenVINO is not installed: networks run on torch, more slowly. pip install openvino")
        return None
    try:
        found = _find_or_convert(entry, precision, judge)
        if found is None:
            return None
        folder, choice = found
        if choice.agrees and (choice.fast_enough or wanted == "openvino"):
            return opened(folder)
        if wanted == "openvino":
            LOG.warning("%s runs on torch: %s", entry.id, choice.reason)
    except (OSError, LockedError, RuntimeError) as error:
        LOG.warning("%s runs on torch: the converted network cannot be used (%s)", entry.id, error)
    return None


def _in_torch(entry: Entry, device: str) -> TorchBackend:
    def load() -> nn.Module:
        # imported here because timm takes seconds, and a stored network needs none of it
        from zoo.serving.models.loading import load_model  # noqa: PLC0415

        return load_model(entry)

    return TorchBackend(load, device)


@lru_cache
def _say_once(message: str) -> None:
    LOG.warning(message)


def _find_or_convert(entry: Entry, precision: str, judge: Callable[[Path], Choice]) -> tuple[Path, Choice] | None:
    """The folder of the converted network and the choice for it, made now if need be; None where there is no room."""
    folder = store.store_folder() / store.key_of(entry, precision)
    choice = store.read_choice(folder)
    if choice is not None:
        return folder, choice
    if not store.has_room(4 * (entry.weights.parameters or 0) if entry.weights else 0):
        LOG.warning("%s runs on torch: there is no room to store its converted network", entry.id)
        return None
    with store.locked(folder):
        choice = store.read_choice(folder)
        if choice is None:
            with atomic_folder(folder) as temporary:
                choice = judge(temporary)
            keep_within(folder.parent, CONVERTED_MB.bytes, used=folder)
    return folder, choice


def _open(entry: Entry, folder: Path, device: str) -> ServedNetwork:
    """The network behind a stored backend. Torch's network is not built, or left to be freed.

    Raises:
        EntryError: the classical head cannot be loaded.
        RuntimeError: the stored network does not give torch's results any more.
    """
    reference = store.read_reference(folder)
    if reference is None:
        raise RuntimeError(f"{store.REFERENCE} is damaged")
    head = load_head(entry, reference.vectors.shape[1]) if entry.config.zoo.head else None
    backend = openvino_backend.OpenVinoBackend(folder / store.NETWORK, None if head is None else head.logits)
    _check(folder, difference(backend, reference))
    return ServedNetwork(entry.id, _in_torch(entry, device), backend, reference.linear, head)


def _open_maps(folder: Path) -> openvino_backend.CompiledNetwork:
    """A detector's stored network. Raises RuntimeError if it does not give torch's results any more."""
    reference = store.read_map_reference(folder)
    if reference is None:
        raise RuntimeError(f"{store.REFERENCE} is damaged")
    network = openvino_backend.CompiledNetwork(folder / store.NETWORK)
    _check(folder, map_difference(network.outputs, reference))
    return network


def _check(folder: Path, differs: float) -> None:
    if differs > TOLERANCE:
        store.forget(folder)
        raise RuntimeError(f"its results differ from torch's by {differs:.1e}")
