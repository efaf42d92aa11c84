"""Score detectors on evaluation sets of fields.

What was found is stored with the entry, so that every score can be computed again with --rescore.

  python -m training score-fields cells --data ROOT
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from training.cli.common import ROOT_HELP
from zoo.cli.common import OK, USAGE, fail, print_message
from zoo.entry import Entry, EntryError, load_entry
from zoo.sources.catalogue import get_detector

SHOWN = ("AP50", "recall", "precision", "count error", "diameter error")  # of each object, in the table for people


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("detectors", nargs="+", metavar="DETECTOR", help="id of a detector, or the folder of its entry")
    parser.add_argument("--benchmark", nargs="+", action="extend", metavar="NAME", help="(default: all)")
    parser.add_argument("--data", type=Path, metavar="ROOT", help=ROOT_HELP)
    parser.add_argument("--rescore", action="store_true", help="only compute the scores of what is stored again")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON on stdout")


def run(options: argparse.Namespace) -> int:
    """Score the detectors."""
    if not options.rescore and options.data is None:
        return fail("Name the folder of the data sets with --data, or use --rescore.", USAGE)
    from training.detection.evaluate import evaluate_detector, find_in_fields
    from zoo.detection.benchmarks import field_benchmarks, read_found
    from zoo.detection.detector import Detector

    known = field_benchmarks()
    wanted = options.benchmark or list(known)
    if unknown := [name for name in wanted if name not in known]:
        return fail(f"There is no evaluation set {unknown[0]!r}. There are: {', '.join(known)}.", USAGE)
    scores: dict[str, dict[str, object]] = {}
    for name in options.detectors:
        entry = _entry(name)
        detector = None if options.rescore else Detector(entry)
        for benchmark in map(known.__getitem__, wanted):
            if detector is None:
                table = read_found(entry, benchmark.name)
            else:
                table = find_in_fields(
                    detector, benchmark, options.data, lambda fields: tqdm(fields, unit="field", file=sys.stderr)
                )
            found = evaluate_detector(entry, benchmark, table)
            print_message(f"{entry.id}, {benchmark.name}:")
            for key, metric in found.items():
                if key.partition(": ")[2] in SHOWN:
                    print_message(f"  {key} {metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})")
            scores.setdefault(entry.id, {})[benchmark.name] = {key: one.model_dump() for key, one in found.items()}
    if options.json:
        print(json.dumps(scores))
    return OK


def _entry(name: str) -> Entry:
    folder = Path(name)
    entry = load_entry(folder) if folder.is_dir() else get_detector(name)
    if not entry.is_detector:
        raise EntryError(f"{name} is a classifier. Score it with `python -m training evaluate`.")
    return entry
