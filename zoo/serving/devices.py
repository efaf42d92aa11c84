"""Choice of the device and of the number format in which networks run."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.entry import Entry, EntryError, read_predictions
from zoo.lazy import lazy_module
from zoo.threads import compute_threads

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")

LOG = logging.getLogger(__name__)
PRECISIONS = ("auto", "bf16", "fp32")
PRECISION_VARIABLE, DEVICE_VARIABLE = "HEMAZOO_PRECISION", "HEMAZOO_DEVICE"
MIN_BF16_GAIN = 1.15  # speed of bf16 over that of fp32 from which on bf16 is used
GIVE_UP = 3.0  # a format that is so many times slower than another in a turn is not tried again
MIN_TRIAL = 0.1  # seconds of a turn from which on it decides: a shorter one may have waited for another process
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # capabilities of processors that multiply in bf16
# bf16 moves a logit by about 1 %: no matter where the answer is clear, up to some hundredths where it is not.
# Answers whose highest probability is below this are computed again in fp32.
CLEAR_PROBABILITY = 0.98


def find_device(name: str = "auto") -> str:
    """Name of the device that `resolve_device` returns. Torch is not imported where that can only be the CPU.

    Raises:
        EntryError: there is no such device here, or it is not supported.
    """
    if name == "auto":
        name = os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    return str(resolve_device(name))


def _may_have_gpu() -> bool:
    """Whether there is a GPU's driver; only torch knows if it can be used."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if Path("/dev/kfd").exists():  # AMD's
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; auto is what HEMAZOO_DEVICE names, else CUDA, Apple's MPS or the CPU.

    Raises:
        EntryError: there is no such device here, or it is not supported.
    """
    if name == "auto":
        name = os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EntryError(f"There is no device {name!r}. Use auto, cpu, cuda or mps.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise EntryError(f"There is no device {name} here. Use --device cpu, or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EntryError(f"There is no device {name} here. Use --device cpu, or auto.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise EntryError(f"The device {name} is not supported. Use auto, cpu, cuda or mps.")
    return device


def device_name(device: torch.device | str) -> str:
    """Name a device for people: the GPU's name, or CPU with its number of threads."""
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    if kind == "mps":
        return "GPU (Apple)"
    threads = compute_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def default_precision() -> str:
    """Precision that the environment asks for by HEMAZOO_PRECISION; "auto" without it, or where it is unknown."""
    wanted = os.environ.get(PRECISION_VARIABLE, "auto")
    if wanted not in PRECISIONS:
        LOG.warning("%s is %r, not one of %s; taking auto", PRECISION_VARIABLE, wanted, ", ".join(PRECISIONS))
        return "auto"
    return wanted


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16. Where it does not, bf16 is emulated and many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(torch.cpu.get_capabilities().get(name) for name in NATIVE_BF16)
    return False


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """Return the context of bf16 autocast on a device, or one without effect."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def unclear_share(entry: Entry) -> float:
    """Share of the entry's stored predictions that bf16 would have to compute again; 0 where it stores none."""
    for name in entry.evaluation.benchmarks:
        with contextlib.suppress(EntryError):
            table = read_predictions(entry, name)
            highest = table[entry.evaluation.benchmarks[name].labels].max(axis=1)
            return float((highest < CLEAR_PROBABILITY).mean())
    return 0.0


def bf16_is_faster(model: nn.Module, device: torch.device, size: tuple[int, int, int], recomputed_share: float) -> bool:
    """Measure, in under a second, whether a network is at least MIN_BF16_GAIN times as fast in bf16 as in fp32.

    Args:
        model: network on `device`.
        device: where it runs.
        size: (3, H, W) of its input.
        recomputed_share: share of pictures whose answer has to be computed in fp32 as well.
    """
    if not has_native_bf16(device):
        return False
    batch = torch.zeros(8, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = {False: float("inf"), True: float("inf")}
    with torch.no_grad():
        for turn in range(4):
            taken = {}
            for bf16 in (False, True):
                start = time.perf_counter()
                with autocast(device, bf16):
                    model(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                taken[bf16] = time.perf_counter() - start
            if taken[True] > max(GIVE_UP * taken[False], MIN_TRIAL):
                return False
            if turn:  # the first one warms up
                times = {bf16: min(times[bf16], taken[bf16]) for bf16 in times}
    return (times[True] + recomputed_share * times[False]) * MIN_BF16_GAIN < times[False]


class TorchSpeed:
    """The speed of a network in torch, in the number format that torch would run it in."""

    def __init__(self, device: str, choose_bf16: Callable[[nn.Module], bool], recomputed: Callable[[], float]) -> None:
        """Remember what is measured.

        Args:
            device: name of the device on which the network runs.
            choose_bf16: measures whether it runs in bf16.
            recomputed: tells the share of pictures whose answer has to be computed in fp32 as well; reading it takes
                the entry's predictions.
        """
        self._device, self._choose, self._recomputed = device, choose_bf16, recomputed
        self._bf16: bool | None = None

    def bf16(self, model: nn.Module) -> bool:
        """Whether torch runs the network in bf16; measured on the first call."""
        if self._bf16 is None:
            self._bf16 = self._choose(model)
        return self._bf16

    def seconds(self, model: nn.Module, batch: torch.Tensor) -> float:
        """Measure one pass of a batch (B, 3, H, W)."""
        bf16 = self.bf16(model)
        taken = self._timed(model, batch, bf16)
        return taken + self._recomputed() * self._timed(model, batch, bf16=False) if bf16 else taken

    def _timed(self, model: nn.Module, batch: torch.Tensor, bf16: bool) -> float:
        batch = batch.contiguous(memory_format=torch.channels_last)
        start = time.perf_counter()
        with torch.no_grad(), autocast(torch.device(self._device), bf16):
            model(batch)
        return time.perf_counter() - start
