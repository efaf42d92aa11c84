"""Choose the limits within which answers are accepted, by laboratories that models were not trained on.

Each entry answers cells of every such laboratory below ROOT; the answers, the limits and how they hold in laboratories
left out are kept in the entry.

  python -m training accept champion8 --data ROOT
  python -m training accept champion8              (from the answers that it keeps)
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import ROOT_HELP, add_device, add_json, find_entry
from zoo.cli.common import ENTRY_HELP, OK, print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.evaluation import acceptance
else:
    acceptance = lazy_module("training.evaluation.acceptance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument("--data", type=Path, metavar="ROOT", help=f"{ROOT_HELP}; without it, kept answers are used")
    add_device(parser)
    add_json(parser, "the limits and results")


def run(options: argparse.Namespace) -> int:
    """Choose limits for each entry and keep them in it."""
    from zoo.serving.runtime import Runtime

    told = {}
    for entry in [find_entry(name, usable=bool(options.data)) for name in options.entries]:
        if options.data:
            with Runtime(options.device) as runtime:
                acceptance.collect(entry, options.data, runtime, print_message)
        chosen = acceptance.choose(entry)
        acceptance.store(entry, chosen)
        limits = chosen.limits.model_dump()
        told[entry.id] = {"limits": limits, "temperature": chosen.temperature} | {
            name: list(map(asdict, results)) for name, results in (("held", chosen.held), ("own", chosen.own))
        }
        values = ", ".join(f"{name} {value:.3f}" for name, value in (limits.pop("classes") | limits).items())
        print_message(f"{entry.id}: temperature {chosen.temperature:.2f}, limits {values}")
        for how, results in (("left out", chosen.held), ("by the limits in use", chosen.own)):
            for one in results:
                print_message(_line(one, how))
    if options.json:
        print(json.dumps(told))
    return OK


def _line(held: acceptance.Held, how: str) -> str:
    right = "none" if held.right is None else f"{100 * held.right:.1f} % right"
    strangers = "".join(f"; {kind} accepted {100 * share:.1f} %" for kind, share in held.unknown_kinds.items())
    return (
        f"  {held.laboratory} {how}: {100 * held.share:.1f} % of {held.images} accepted, {right}, calibration "
        f"error {100 * held.ece:.1f} %{strangers}"
    )
