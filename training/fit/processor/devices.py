"""Devices of training: one `accelerate` object, from a laptop's CPU to many machines with many GPUs; precision."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from training.prepare.dataset import TrainingDataError

# parameters of glibc's mallopt(3), from malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM = 2**31 - 1  # bytes of free memory at the heap's end before it is given back
NO_MMAPPED_BLOCKS = 0  # blocks that may lie outside of the heap

REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precisions that autocast enters


def make_accelerator(device: torch.device, log: str | None = None, log_folder: Path | None = None) -> Accelerator:
    """Make the process's accelerator; under `accelerate launch` one of several that train together.

    Args:
        device: Device of the network.
        log: Tracker that epochs are reported to, as accelerate names it.
        log_folder: Folder of the tracker.

    Raises:
        TrainingDataError: The tracker's package is not installed.
    """
    if log and log not in {tracker.value for tracker in get_available_trackers()}:
        raise TrainingDataError(f"The package {log} is not installed: pip install {log}, or leave --log out.")
    # accelerate keeps one state for each process: another device than the last run's needs a new one
    if AcceleratorState._shared_state and AcceleratorState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    if device.type == "cpu":
        keep_memory()
    project = ProjectConfiguration(str(log_folder), str(log_folder)) if log_folder else None
    # mixed precision is entered by `autocast`, where networks run
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", log_with=log, project_config=project)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Enter a recipe's precision, "bf16", "fp16" or "fp32", for the operations in its context."""
    return torch.autocast(device.type, REDUCED.get(precision, torch.bfloat16), enabled=precision in REDUCED)


def keep_memory(load_library: Callable[[None], Any] = ctypes.CDLL) -> bool:
    """Let this process keep the memory of freed tensors for new ones, until it ends.

    glibc returns large blocks to the system as soon as they are freed. Every step of a training frees and takes the
    same blocks, and the system clears each page anew: up to a third of a step on a CPU. Source: mallopt(3).

    Args:
        load_library: Loads the process's own C library.

    Returns:
        Whether it is possible; on other systems than glibc nothing changes.
    """
    mallopt = getattr(load_library(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(
        mallopt(M_TRIM_THRESHOLD, NEVER_TRIM) and mallopt(M_MMAP_MAX, NO_MMAPPED_BLOCKS)
    )
