"""Seconds and memory of a new `python -m zoo` process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
INTERVAL = 0.01  # seconds between two looks at a process's memory


def peak_memory(words: Sequence[str]) -> tuple[float, float]:
    """Run `python -m zoo` with these words; its seconds, and its highest memory in MB (0 where /proc is not to be had).

    The operating system's own record (`ru_maxrss`) counts the memory of the process that starts another as the other's.

    Raises:
        RuntimeError: the command failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, _highest(process.pid))
        time.sleep(INTERVAL)
    if process.returncode:
        raise RuntimeError(f"python -m zoo {' '.join(words)}: the command failed")
    return time.perf_counter() - start, highest


def _highest(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    named = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return int(named.get("VmHWM", "0 kB").split()[0]) / 1000
