"""Export an entry's network for other programs, as ONNX.

The file takes normalised pictures and gives calibrated probabilities; labels and preprocessing are in its metadata.
Its answers are compared with torch's, by ONNX Runtime or OpenVINO, before it is kept. Needs the package onnx.

  python -m training export my-zoo/my-model --onnx my-model.onnx
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import add_json, find_entry
from training.errors import UsageError
from zoo.cli.common import ENTRY_HELP, OK, print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.publish import onnx
else:
    onnx = lazy_module("training.publish.onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("entry", metavar="ENTRY", help=ENTRY_HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write, ending in .onnx")
    parser.add_argument("--restart", action="store_true", help="replace a file that exists")
    add_json(parser, "what was written")


def run(options: argparse.Namespace) -> int:
    """Write the file and print how well it agrees with torch."""
    target = options.onnx
    if target.exists() and not options.restart:
        raise UsageError(f"{target} already exists. Choose another --onnx, or --restart to replace it.")
    entry = find_entry(options.entry)
    difference = onnx.export_onnx(entry, target)
    if difference is None:
        print_message("Not compared with torch: neither onnxruntime nor openvino is installed.")
    else:
        print_message(f"Its probabilities differ from torch's by {difference:.1g} at most.")
    print_message(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {', '.join(entry.labels)}.")
    if options.json:
        record = {"entry": entry.id, "file": str(target), "difference": difference, **onnx.metadata(entry)}
        print(json.dumps(record))
    return OK
