"""Choice of the device and of the number format in which networks run."""

from __future__ import annotations

import contextlib
import logging
import os
import time

import torch
from torch import nn

from zoo.entry import Entry, EntryError, read_predictions

LOG = logging.getLogger(__name__)
PRECISIONS = ("auto", "bf16", "fp32")
PRECISION_VARIABLE, DEVICE_VARIABLE = "HEMAZOO_PRECISION", "HEMAZOO_DEVICE"
MIN_BF16_GAIN = 1.15  # speed of bf16 over that of fp32 from which on bf16 is used
# bf16 moves a logit by about 1 %: no matter where the answer is clear, up to some hundredths where it is not.
# Answers whose highest probability is below this are computed again in fp32.
CLEAR_PROBABILITY = 0.98


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


def device_name(device: torch.device) -> str:
    """Name a device for people: the GPU's name, or CPU with its number of threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "GPU (Apple)"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def default_precision() -> str:
    """Precision that the environment asks for by HEMAZOO_PRECISION; "auto" without it, or where it is unknown."""
    wanted = os.environ.get(PRECISION_VARIABLE, "auto")
    if wanted not in PRECISIONS:
        LOG.warning("%s is %r, not one of %s; taking auto", PRECISION_VARIABLE, wanted, ", ".join(PRECISIONS))
        return "auto"
    return wanted


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
    if device.type == "mps":
        return False
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return False
    batch = torch.zeros(8, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = {False: float("inf"), True: float("inf")}
    with torch.no_grad():
        for turn in range(4):
            for bf16 in (False, True):
                start = time.perf_counter()
                with autocast(device, bf16):
                    model(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                # the first turn warms up
                times[bf16] = min(times[bf16], time.perf_counter() - start) if turn else float("inf")
    return (times[True] + recomputed_share * times[False]) * MIN_BF16_GAIN < times[False]
