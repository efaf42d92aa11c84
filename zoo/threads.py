"""Threads of this process: as many as it may use processors, and none that spins while it waits.

Threads of OpenMP spin for a while at the end of each parallel part, in case the next one begins at once. Beside another
busy process they then hold a processor that the thread which they wait for needs. docs/operations.md has the figures.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
WAIT_POLICY, PASSIVE = "OMP_WAIT_POLICY", "PASSIVE"
OWN_WAITING = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # variables by which a person chooses how threads wait
OMP_THREADS = "OMP_NUM_THREADS"
OPENCV_THREADS = "OPENCV_FOR_THREADS_NUM"  # of one call; several pictures are located at once instead


def set_up_threads(environment: MutableMapping[str, str] = os.environ, cgroup: Path = CGROUP) -> None:
    """Set how the threads of OpenMP wait and how many there are. Call it before torch is imported.

    A person's own settings hold. The number is set only where a container may use fewer processors than it sees:
    otherwise torch chooses well. OpenCV gets one thread.
    """
    environment.setdefault(OPENCV_THREADS, "1")
    if not any(name in environment for name in OWN_WAITING):
        environment[WAIT_POLICY] = PASSIVE
    quota = _quota(cgroup)
    if quota is not None and quota < _visible_processors():
        environment.setdefault(OMP_THREADS, str(quota))


def usable_processors(cgroup: Path = CGROUP) -> int:
    """Number of processors that this process may use: by its affinity and its container's quota, at least 1."""
    quota = _quota(cgroup)
    return min(_visible_processors(), quota) if quota else _visible_processors()


def compute_threads(environment: Mapping[str, str] = os.environ) -> int:
    """Number of threads that run a network: OMP_NUM_THREADS, which `set_up_threads` sets too, else all processors."""
    wanted = environment.get(OMP_THREADS, "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else usable_processors()


def _visible_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(cgroup: Path) -> int | None:
    """Processors that the control group grants, rounded up (https://docs.kernel.org/admin-guide/cgroup-v2.html).

    None without a limit, or where the system has no control groups.
    """
    try:
        if (cgroup / "cpu.max").exists():
            granted, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        else:  # version 1
            granted, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        share = int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or -1: no limit
        return None
    return max(1, math.ceil(share)) if share > 0 else None


_places = threading.BoundedSemaphore(usable_processors())


def preparing() -> AbstractContextManager[object]:
    """Context in which a thread locates the cell of a picture and resizes it.

    At most as many threads of all sessions as there are processors are in it: more would only hold each other up. Do
    not wait for anything inside it.
    """
    return _places
