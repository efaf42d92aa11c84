"""Use entries as the app does, in a process of its own: `python -m tests.use_entries FOLDER…`.

Prints one JSON record an entry: `refused` or `used` with what was said, or `escaped` with an unexpected exception. An
entry that takes too long ends the process, as one that crashes it does.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from tests.making import draw_cell
from zoo.entry import (
    NEIGHBOURS,
    BrokenEntry,
    EntryError,
    read_card,
    read_entry,
    read_history,
    read_predictions,
    summary,
)
from zoo.serving.runtime import Runtime

MAX_SECONDS = 30
MAX_MEMORY = 6_000_000_000  # bytes of address space beyond what the process has at its start


def use(folder: Path, runtime: Runtime) -> tuple[str, list[str]]:
    """Read everything of an entry and classify with it; returns what became of it, and the sentences."""
    entry, said = read_entry(folder), []
    json.dumps(summary(entry), default=str)
    if isinstance(entry, BrokenEntry):
        return "refused", [entry.reason]
    read_card(entry)
    read_history(entry)
    for name in entry.evaluation.benchmarks:
        try:
            read_predictions(entry, name)
        except EntryError as error:
            said.append(str(error))
    try:
        found = runtime.classify(entry, draw_cell("monocyte", 1))
        assert np.isfinite(list(found.probabilities.values())).all()
        if (folder / NEIGHBOURS).exists():
            runtime.neighbours(entry, draw_cell("monocyte", 1))
    except EntryError as error:
        return "refused", [*said, str(error)]
    return ("refused" if said else "used"), said


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY, used + MAX_MEMORY))
    with Runtime("cpu", "fp32") as runtime:
        for folder in folders:
            # time of the processor, which other processes do not lengthen; no handler: the process ends
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
            start = time.process_time()
            try:
                became, said = use(Path(folder), runtime)
            except Exception:
                became, said = "escaped", [traceback.format_exc()]
            signal.setitimer(signal.ITIMER_PROF, 0)
            record = {"folder": folder, "became": became, "said": said, "seconds": time.process_time() - start}
            print(json.dumps(record), flush=True)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
