"""What does training run on? One `accelerate` object, from a laptop's CPU to many machines with many GPUs."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from training.prepare.dataset import TrainingDataError

# of glibc's malloc.h: free memory at the heap's end that is given back, and how many blocks lie outside of the heap
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1

LOGS = ("tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml")


def make_accelerator(device: torch.device, log: str | None = None, log_folder: Path | None = None) -> Accelerator:
    """The process's accelerator on `device`; under `accelerate launch` one of several that work together.

    `log` names a tracker that epochs are reported to. Raises TrainingDataError if its package is not installed.
    """
    if log and log not in {tracker.value for tracker in get_available_trackers()}:
        raise TrainingDataError(f"The package {log} is not installed: pip install {log}, or leave --log out.")
    # accelerate keeps one state a process: another device than the last run's needs another one
    if AcceleratorState._shared_state and AcceleratorState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    if device.type == "cpu":
        keep_memory()
    project = ProjectConfiguration(str(log_folder), str(log_folder)) if log_folder else None
    # bf16 is entered by the engine itself, in the one place where networks run
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", log_with=log, project_config=project)


def keep_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones, until it ends; whether it can.

    glibc gives large blocks back to the system as soon as they are freed. Every step of a training frees and takes the
    same ones, and the system empties each page anew: up to a third of a step on a CPU. Elsewhere than on glibc nothing
    changes. Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, NEVER) and mallopt(MMAP_MAX, 0))
