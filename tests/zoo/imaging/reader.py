"""Reading of hostile files in a process of its own, without torch: `python -m tests.zoo.imaging.reader FOLDER`.

Prints a JSON object: outcome and seconds by file, unexpected exceptions, and the peak memory of this process and of its
decode workers.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zoo.imaging.decode import PictureError, close_workers, read_picture

SLOW_SECONDS, TURNS = 1.0, 5  # what takes longer is read again, since other processes may have had the processor


def peak_megabytes() -> float:
    """Highest memory of this process; getrusage would count that of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def read_all(files: Iterator[tuple[str, bytes]]) -> dict[str, object]:
    """Read each file, and report."""
    outcomes: dict[str, tuple[str, float]] = {}
    unexpected: dict[str, str] = {}
    for name, raw in files:
        took = float("inf")
        for _ in range(TURNS):
            started = time.monotonic()
            try:
                read_picture(raw)
                said = "read"
            except PictureError as error:
                said = str(error)
            except BaseException as error:
                said = unexpected[name] = repr(error)
            took = min(took, time.monotonic() - started)
            if took < SLOW_SECONDS:
                break
        outcomes[name] = (said, took)
    close_workers()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    return {"outcomes": outcomes, "unexpected": unexpected, "peak": peak_megabytes(), "workers": workers}


if __name__ == "__main__":
    print(json.dumps(read_all((path.stem, path.read_bytes()) for path in sorted(Path(sys.argv[1]).iterdir()))))
