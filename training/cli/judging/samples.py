"""Compare what models score with each sample in the validation laboratories.

Everything is computed from stored predictions.

  python -m training samples champion8 champion4
  python -m training samples champion8 champion8-small --fit
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict

from training.cli.common import add_json, find_entry
from training.evaluation.samples import fit_flattening, scores_by_sample
from zoo.cli.common import ENTRY_HELP, FAILED, OK, fail, print_message
from zoo.entry import Metric
from zoo.scores.sample.samples import flattening


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument(
        "--fit", action="store_true", help="instead, try values of `flattening` (zoo/scores/sample/samples.toml)"
    )
    add_json(parser, "the scores")


def run(options: argparse.Namespace) -> int:
    """Print the scores; the status is 1 if a model has none."""
    entries = [find_entry(name, usable=False) for name in options.entries]
    if options.fit:
        fit = fit_flattening(entries)
        for exponent, accuracy in fit.scores.items():
            print_message(f"flattening {exponent:.4f}: mean balanced accuracy {100 * accuracy:.2f} %")
        print_message(f"Best: {fit.best:.4f}; in use: {flattening():.4f}.")
        if options.json:
            print(json.dumps({"scores": fit.scores, "best": fit.best, "in_use": flattening()}))
        return OK
    rows = scores_by_sample(entries)
    for row in rows:
        print_message(f"{row.entry}, {row.title}:")
        for name, score in row.scores.items():
            mark = " (fits the laboratory)" if name == row.usual else ""
            interval = f"{100 * (score.low or 0):.1f} to {100 * (score.high or 1):.1f}"
            print_message(f"  {name}: {100 * score.value:.1f} % ({interval}){mark}")
    if options.json:
        print(json.dumps([asdict(row) | {"scores": _plain(row.scores)} for row in rows]))
    missing = {entry.id for entry in entries} - {row.entry for row in rows}
    return fail(f"No scores by sample: {', '.join(sorted(missing))}.", FAILED) if missing else OK


def _plain(scores: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    return {name: score.model_dump() for name, score in scores.items()}
