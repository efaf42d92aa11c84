"""Publish example pictures on the Hugging Face Hub.

Puts a few pictures of each class into a data-set repository of the Hub. The app's Examples page shows them where
HEMAZOO_EXAMPLES=hub:NAMESPACE/NAME names it. The pictures are saved anew, without file names and metadata. Publish only
pictures that you are allowed to publish, and none with a patient's name in the picture itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.common import add_dry_run, add_json, print_publication
from zoo.cli.common import print_message
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    from training.publish import examples
else:
    examples = lazy_module("training.publish.examples")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="pictures, or one folder of them per class")
    parser.add_argument("--repo", required=True, metavar="NAMESPACE/NAME", help="the data-set repository")
    parser.add_argument(
        "--each",
        type=int,
        default=examples.PICTURES_PER_CLASS,
        metavar="N",
        help="pictures per class (default: %(default)s)",
    )
    parser.add_argument("--title", default=examples.ExampleOptions.title, metavar="TEXT", help="title of the card")
    parser.add_argument("--credit", default="", metavar="TEXT", help="source of the pictures")
    parser.add_argument("--license", default="other", metavar="ID", help="licence id of the Hub, such as cc-by-4.0")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    add_dry_run(parser)
    add_json(parser, "what was published")


def run(options: argparse.Namespace) -> int:
    """Publish the pictures."""
    example_options = examples.ExampleOptions(
        options.each, options.title, options.credit, options.license, options.private, options.dry_run
    )
    return print_publication(
        examples.publish(options.folder, options.repo, example_options, print_message), options, "published"
    )
