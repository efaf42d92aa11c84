"""Conversion of a torch network, and comparison of results and speed with torch's. Imports torch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.attribution.features import forward_features, forward_head
from zoo.entry import Entry
from zoo.limits import BACKEND_TRIAL
from zoo.serving.backends import store
from zoo.serving.backends.compare import TOLERANCE, difference, map_difference
from zoo.serving.backends.openvino_backend import CompiledNetwork, OpenVinoBackend
from zoo.serving.backends.store import Choice, LinearLayer, MapReference, Reference
from zoo.serving.heads.network import ClassicalHeadModel

EXAMPLE_PICTURES = 2  # of the traced pass; any number of pictures can be run afterwards
REFERENCE_PICTURES = 3  # another number than that of the traced pass, so that a fixed number of pictures is noticed
TRIAL_PICTURES = 8  # of one turn of the trial
TRIAL_TURNS = 4
TRACED_MAPS, REFERENCE_MAPS, TRIAL_MAPS = (64, 96), (96, 64), (256, 320)  # height and width, of detectors
MIN_TRIAL = 0.3  # seconds
GIVE_UP = 4.0  # times as slow as the other, after which no more turns are needed
# speed over torch's from which on a backend is used: below 1, because a process that needs no torch starts sooner
MIN_SPEED = 0.9

Timed = Callable[[], tuple[float, float]]  # → seconds of a pass of the other library, and of torch
TorchSeconds = Callable[[nn.Module, torch.Tensor], float]  # network, batch → seconds of torch's pass


class _Traced(nn.Module):
    """A timm model as one pass with its features, vectors and, unless a classical head follows, logits."""

    def __init__(self, model: nn.Module, logits: bool) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the outputs of a batch (B, 3, H, W)."""
        network: Any = self.model
        features = network.forward_features(batch)
        vectors = network.forward_head(features, pre_logits=True)
        if not self.logits:
            return features, vectors
        last = network.get_classifier()
        # most heads end in one layer: the vectors need not be computed twice
        logits = last(vectors) if isinstance(last, nn.Linear) else network.forward_head(features)
        return features, vectors, logits


def convert(model: nn.Module, size: tuple[int, int, int], logits: bool, target: Path) -> None:
    """Convert a torch network to OpenVINO's format and store it.

    Args:
        model: a timm model on the CPU, in evaluation mode.
        size: (3, H, W) of its input.
        logits: whether its own logits are wanted; False where a classical head takes its vectors.
        target: file to write, ending in .xml; the weights are written beside it.

    Raises:
        OSError: it cannot be written.
        Exception: whatever tracing or the conversion raises.
    """
    _convert_traced(_Traced(model, logits), torch.zeros(EXAMPLE_PICTURES, *size), size, target)


def convert_maps(network: nn.Module, target: Path) -> None:
    """Convert a detector's network, for pictures of any size; arguments and errors as for `convert`."""
    _convert_traced(network, torch.zeros(EXAMPLE_PICTURES, 3, *TRACED_MAPS), (3, -1, -1), target)


def _convert_traced(module: nn.Module, example: torch.Tensor, size: tuple[int, int, int], target: Path) -> None:
    import openvino  # noqa: PLC0415
    from openvino.frontend import FrontEndManager  # noqa: PLC0415
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415

    with torch.no_grad(), warnings.catch_warnings():
        # tracing warns of every shape that it takes for constant; the converted network is compared with torch's
        warnings.simplefilter("ignore")
        traced = TorchScriptPythonDecoder(
            module,
            example_input=(example,),
            trace_kwargs={"check_trace": False},
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        converted = frontend.convert(frontend.load(traced))
    converted.reshape({0: openvino.PartialShape([-1, *size])})
    try:
        openvino.save_model(converted, str(target), compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"it cannot be written: {str(error).strip()}") from error


def convert_and_judge(entry: Entry, module: nn.Module, folder: Path, torch_seconds: TorchSeconds) -> Choice:
    """Convert a network into a folder, compare results and speeds, and write down the choice. Raises OSError."""
    size = entry.config.pretrained_cfg.input_size
    network = module.network if isinstance(module, ClassicalHeadModel) else module
    classify = module.head.logits if isinstance(module, ClassicalHeadModel) else None

    def trial() -> tuple[float, Timed]:
        reference = _reference(network, size, classify is None)
        store.write_reference(folder, reference)
        convert(network, size, classify is None, folder / store.NETWORK)
        backend = OpenVinoBackend(folder / store.NETWORK, classify)
        batch = torch.zeros(TRIAL_PICTURES, *size)
        return difference(backend, reference), lambda: (
            _seconds(lambda: backend.predict(batch.numpy())),
            torch_seconds(module, batch),
        )

    return _judge(folder, trial)


def convert_and_judge_maps(network: nn.Module, folder: Path) -> Choice:
    """Do the same for a detector's network, on the CPU."""

    def trial() -> tuple[float, Timed]:
        reference = _map_reference(network)
        store.write_map_reference(folder, reference)
        convert_maps(network, folder / store.NETWORK)
        backend = CompiledNetwork(folder / store.NETWORK)
        batch = torch.zeros(1, 3, *TRIAL_MAPS).contiguous(memory_format=torch.channels_last)

        def in_torch() -> None:
            with torch.inference_mode():
                network(batch)

        return map_difference(backend.outputs, reference), lambda: (
            _seconds(lambda: backend.outputs(np.ascontiguousarray(batch.numpy()))),
            _seconds(in_torch),
        )

    return _judge(folder, trial)


def _judge(folder: Path, trial: Callable[[], tuple[float, Timed]]) -> Choice:
    """Write down the choice by a trial: it converts, and returns the difference and what times both libraries."""
    try:
        differs, timed = trial()
    except (OSError, MemoryError):
        raise
    # each operation that the library does not know may fail in its own way
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return store.write_choice(folder, False, False, f"OpenVINO cannot convert it ({reason[:200]})")
    if differs > TOLERANCE:
        return store.write_choice(folder, False, False, f"OpenVINO's results differ from torch's by {differs:.1e}")
    gain = _gain(timed)
    return store.write_choice(folder, True, gain >= MIN_SPEED, f"OpenVINO is {gain:.2f} times as fast as torch")


def _reference(network: nn.Module, size: tuple[int, int, int], logits: bool) -> Reference:
    """Torch's results for noise."""
    batch = _noise(size)
    with torch.no_grad():
        features = forward_features(network, batch).float()
        vectors = forward_head(network, features, pre_logits=True).float()
        # a classical head follows on the same vectors, whatever the backend
        own = forward_head(network, features).float() if logits else torch.empty(0)
    layer = _linear_layer(network, features, vectors) if logits else None
    return Reference(batch.numpy(), features.numpy(), vectors.numpy(), own.numpy(), layer)


def _noise(size: tuple[int, int, int]) -> torch.Tensor:
    """Pictures that are noise at several scales, the same in every run."""
    random = torch.Generator().manual_seed(0)
    batch = torch.randn(REFERENCE_PICTURES, *size, generator=random) * 0.5
    for side in (2, 8):
        coarse = torch.randn(REFERENCE_PICTURES, size[0], side, side, generator=random)
        batch += nn.functional.interpolate(coarse, size[1:], mode="bilinear")
    return batch


def _linear_layer(network: nn.Module, features: torch.Tensor, vectors: torch.Tensor) -> LinearLayer | None:
    """The last layer, if the head is the mean over places and that one linear layer."""
    get_classifier = getattr(network, "get_classifier", None)
    last = get_classifier() if get_classifier else None
    if not isinstance(last, nn.Linear) or features.ndim != 4 or features.shape[:2] != vectors.shape:
        return None
    if not torch.allclose(features.mean((2, 3)), vectors, rtol=1e-4, atol=1e-5):
        return None
    weight = last.weight.detach().float()
    bias = torch.zeros(len(weight)) if last.bias is None else last.bias.detach().float()
    return LinearLayer(weight.numpy(), bias.numpy())


def _map_reference(network: nn.Module) -> MapReference:
    """A detector's maps for noise of another size than that of the traced pass."""
    batch = _noise((3, *REFERENCE_MAPS))
    with torch.inference_mode():
        logits, sides = network(batch)
    return MapReference(batch.numpy(), logits.numpy(), sides.numpy())


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _gain(timed: Timed) -> float:
    """Speed over torch's: the shortest times of some turns of each, one after the other, within the limit.

    One turn decides only where it is long: that of a small network may have waited for another process.
    """
    mine, theirs = float("inf"), float("inf")
    begin = time.perf_counter()
    for turn in count():
        taken = timed()
        elapsed = time.perf_counter() - begin
        if turn == 0 and elapsed < MIN_TRIAL:
            continue  # the first one warms up
        mine, theirs = min(mine, taken[0]), min(theirs, taken[1])
        is_clear = turn >= TRIAL_TURNS or max(mine, theirs) > GIVE_UP * min(mine, theirs)
        if elapsed > BACKEND_TRIAL.exact or (elapsed > MIN_TRIAL and is_clear):
            break
    return theirs / mine
