"""Choice of the backend of a network: one that gives torch's results, and gives them sooner.

Both are measured once, and remembered together with the converted network (`store`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from zoo.attribution.features import forward_features, forward_head
from zoo.attribution.network import LinearHead
from zoo.cache import keep_within
from zoo.entry import Entry
from zoo.files import LockedError, atomic_folder
from zoo.limits import BACKEND_TRIAL, CONVERTED_MB
from zoo.serving.backends import openvino_backend, store
from zoo.serving.backends.base import Backend
from zoo.serving.backends.served import ServedNetwork
from zoo.serving.backends.store import Choice, Reference
from zoo.serving.backends.torch_backend import TorchBackend
from zoo.serving.heads import ClassicalHeadModel, load_head

TOLERANCE = 1e-3  # of logits; of features and vectors, as a share of their largest value where that is above 1
REFERENCE_PICTURES = 3  # another number than that of the traced pass, so that a fixed number of pictures is noticed
TRIAL_PICTURES = 8  # of one turn of the trial
TRIAL_TURNS = 4
GIVE_UP = 4.0  # times as slow as the other in a turn, after which no more turns are needed
MIN_GAIN = 1.1  # speed over torch's from which on a backend is used
LOG = logging.getLogger(__name__)

TorchSeconds = Callable[[nn.Module, torch.Tensor], float]  # network, batch → seconds of torch's pass


def serve(
    entry: Entry,
    device: torch.device,
    precision: str,
    wanted: str,
    torch_seconds: TorchSeconds,
) -> ServedNetwork:
    """Put an entry's network behind a backend.

    Args:
        entry: the entry, which is no ensemble.
        device: where torch runs it.
        precision: one of PRECISIONS; bf16 is torch's alone.
        wanted: one of BACKENDS; openvino skips the comparison of speeds, not that of results.
        torch_seconds: measures a pass of torch.

    Returns:
        The network. It runs on torch where the other backend is not installed or not for the device, fails, gives other
        results, is not faster, or cannot be stored.

    Raises:
        EntryError: the network cannot be built.
    """
    in_torch = _in_torch(entry, device)
    if wanted == "torch" or device.type != "cpu" or precision == "bf16":
        return ServedNetwork(entry.id, in_torch)
    if not openvino_backend.is_installed():
        _say_once("OpenVINO is not installed: networks run on torch, more slowly. pip install openvino")
        return ServedNetwork(entry.id, in_torch)
    try:
        found = _find_or_convert(entry, in_torch, precision, torch_seconds)
        if found is None:
            return ServedNetwork(entry.id, in_torch)
        folder, choice = found
        if choice.agrees and (choice.faster or wanted == "openvino"):
            return _open(entry, folder, device)
        if wanted == "openvino":
            LOG.warning("%s runs on torch: %s", entry.id, choice.reason)
    except (OSError, LockedError, RuntimeError) as error:
        LOG.warning("%s runs on torch: the converted network cannot be used (%s)", entry.id, error)
    return ServedNetwork(entry.id, in_torch)


def _in_torch(entry: Entry, device: torch.device) -> TorchBackend:
    def load() -> nn.Module:
        # imported here because timm takes seconds, and a stored network needs none of it
        from zoo.serving.loading import load_model  # noqa: PLC0415

        return load_model(entry)

    return TorchBackend(load, device)


@lru_cache
def _say_once(message: str) -> None:
    LOG.warning(message)


def _find_or_convert(
    entry: Entry, in_torch: TorchBackend, precision: str, torch_seconds: TorchSeconds
) -> tuple[Path, Choice] | None:
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
                choice = _convert(entry, in_torch.module, temporary, torch_seconds)
            keep_within(folder.parent, CONVERTED_MB.bytes, used=folder)
    return folder, choice


def _convert(entry: Entry, module: nn.Module, folder: Path, torch_seconds: TorchSeconds) -> Choice:
    """Convert a network into a folder, compare results and speeds, and write down the choice. Raises OSError."""
    size = entry.config.pretrained_cfg.input_size
    network = module.network if isinstance(module, ClassicalHeadModel) else module
    classify = module.head.logits if isinstance(module, ClassicalHeadModel) else None
    try:
        reference = _reference(network, size, classify is None)
        store.write_reference(folder, reference)
        openvino_backend.convert(network, size, classify is None, folder / store.NETWORK)
        backend = openvino_backend.OpenVinoBackend(folder / store.NETWORK, classify)
        difference = _difference(backend, reference)
    except (OSError, MemoryError):
        raise
    # each operation that the library does not know may fail in its own way
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return store.write_choice(folder, False, False, f"OpenVINO cannot convert it ({reason[:200]})")
    if difference > TOLERANCE:
        return store.write_choice(folder, False, False, f"OpenVINO's results differ from torch's by {difference:.1e}")
    gain = _gain(backend, module, size, torch_seconds)
    return store.write_choice(folder, True, gain >= MIN_GAIN, f"OpenVINO is {gain:.2f} times as fast as torch")


def _open(entry: Entry, folder: Path, device: torch.device) -> ServedNetwork:
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
    difference = _difference(backend, reference)
    if difference > TOLERANCE:
        store.forget(folder)
        raise RuntimeError(f"its results differ from torch's by {difference:.1e}")
    return ServedNetwork(entry.id, _in_torch(entry, device), backend, reference.linear_head, head)


def _reference(network: nn.Module, size: tuple[int, int, int], logits: bool) -> Reference:
    """Torch's results for pictures that are noise at several scales, the same in every run."""
    random = torch.Generator().manual_seed(0)
    batch = torch.randn(REFERENCE_PICTURES, *size, generator=random) * 0.5
    for side in (2, 8):
        coarse = torch.randn(REFERENCE_PICTURES, size[0], side, side, generator=random)
        batch += nn.functional.interpolate(coarse, size[1:], mode="bilinear")
    with torch.no_grad():
        features = forward_features(network, batch)
        vectors = forward_head(network, features, pre_logits=True).float()
        # a classical head follows on the same vectors, whatever the backend
        own = forward_head(network, features).float() if logits else torch.empty(0)
    return Reference(batch, features, vectors, own, _linear_head(network, features, vectors) if logits else None)


def _linear_head(network: nn.Module, features: torch.Tensor, vectors: torch.Tensor) -> LinearHead | None:
    """The head, if it is the mean over places and one linear layer."""
    get_classifier = getattr(network, "get_classifier", None)
    last = get_classifier() if get_classifier else None
    if not isinstance(last, nn.Linear) or features.ndim != 4 or features.shape[:2] != vectors.shape:
        return None
    if not torch.allclose(features.float().mean((2, 3)), vectors, rtol=1e-4, atol=1e-5):
        return None
    weight = last.weight.detach().float()
    bias = torch.zeros(len(weight)) if last.bias is None else last.bias.detach().float()
    return LinearHead(weight, bias)


def _difference(backend: Backend, reference: Reference) -> float:
    """Largest difference of a backend's results from torch's; infinity where a shape or number of pictures fails."""
    largest = 0.0
    for part in (slice(None), slice(1)):  # all pictures, and one alone
        found = backend.predict(reference.batch[part], vectors=True)
        if found.vectors is None:
            return float("inf")
        pairs = [(found.features, reference.features), (found.vectors, reference.vectors)]
        compared = [(mine / _scale(theirs), (theirs / _scale(theirs))[part]) for mine, theirs in pairs]
        if len(reference.logits):
            compared.append((found.logits, reference.logits[part]))
        for mine, theirs in compared:
            if mine.shape != theirs.shape or not torch.isfinite(mine).all():
                return float("inf")
            largest = max(largest, float((mine - theirs).abs().max()))
    return largest


def _scale(values: torch.Tensor) -> torch.Tensor:
    return values.abs().max().clamp(min=1)


def _gain(backend: Backend, module: nn.Module, size: tuple[int, int, int], torch_seconds: TorchSeconds) -> float:
    """Speed over torch's: the shortest times of a few turns of each, one after the other, within the limit."""
    batch = torch.zeros(TRIAL_PICTURES, *size)
    mine, theirs = float("inf"), float("inf")
    end = time.perf_counter() + BACKEND_TRIAL.exact
    for turn in range(1 + TRIAL_TURNS):
        start = time.perf_counter()
        backend.predict(batch)
        taken = time.perf_counter() - start, torch_seconds(module, batch)
        if turn == 0 and max(taken) < GIVE_UP * min(taken):
            continue  # the first one warms up, unless it leaves no doubt
        mine, theirs = min(mine, taken[0]), min(theirs, taken[1])
        if max(mine, theirs) > GIVE_UP * min(mine, theirs) or time.perf_counter() > end:
            break
    return theirs / mine
