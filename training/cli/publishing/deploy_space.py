"""Put the app on the Hugging Face Hub as a Space.

Puts the app into a Space of the Hub, as a container, in one commit; files that are there already are not sent again.
Needs a checkout of the project. Log in first with `hf auth login`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from training.cli.common import add_dry_run, add_json, print_publication
from zoo.cli.common import print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.publish import space
else:
    space = lazy_module("training.publish.space")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--repo", required=True, metavar="NAMESPACE/NAME", help="the Space")
    parser.add_argument("--hardware", metavar="NAME", help="such as cpu-basic or t4-small (default: unchanged)")
    parser.add_argument(
        "--zoo", metavar="NAMESPACE", help="place on the Hub whose models it lists beside the built-in ones"
    )
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    add_dry_run(parser)
    add_json(parser, "what was deployed")


def run(options: argparse.Namespace) -> int:
    """Deploy the app."""
    space_options = space.SpaceOptions(options.hardware, options.zoo, options.private, options.dry_run)
    return print_publication(space.deploy(options.repo, space_options, print_message), options, "deployed")
