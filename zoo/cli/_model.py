"""Options of the commands that run a model."""

from __future__ import annotations

import argparse

from zoo.cli.common import DEVICE_HELP
from zoo.entry import Entry
from zoo.scores.sample.samples import ONLY, ONLY_PREFIX, Sample, SampleError, find_sample, samples
from zoo.serving.backends import BACKENDS
from zoo.serving.devices import PRECISIONS
from zoo.sources.catalogue import DETECTOR_VARIABLE, get_detector, get_entry, usual_detector


def add_model_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options that choose a model and how it runs; without a default, a model has to be named."""
    help_text = "id of the model, see `python -m zoo list`" + (" (default: %(default)s)" if default else "")
    parser.add_argument("--model", required=default is None, default=default, metavar="ID", help=help_text)
    parser.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4, 8),
        help="average this many rotated and mirrored views of each picture (test-time augmentation): slower and "
        "slightly better (default: the model's own number)",
    )
    add_sample_argument(parser)
    add_running_arguments(parser)


def add_running_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where and how networks run."""
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="library that runs the network (default: auto, which takes OpenVINO where it is faster)",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: bf16 where it is faster)")


def add_sample_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what the pictures are a sample of."""
    names = ", ".join(f"“{name}”" for name in samples() if name != ONLY)
    parser.add_argument(
        "--sample",
        type=_sample,
        metavar="S",
        help=f"what the pictures are a sample of: {names}, {ONLY_PREFIX}KIND,KIND… or a TOML file of your own "
        "(default: by the model's classes)",
    )


def add_detector_argument(parser: argparse._ActionsContainer) -> None:
    """Add the option that says what finds the cells of fields."""
    parser.add_argument(
        "--detector",
        default=usual_detector(),
        metavar="ID",
        help=f"model that finds the cells of fields (default: %(default)s; {DETECTOR_VARIABLE} names another)",
    )


def _sample(text: str) -> Sample:
    try:
        return find_sample(text)
    except SampleError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def selected_model(options: argparse.Namespace) -> Entry:
    """The entry that `--model` and `--views` select. Raises EntryError if it cannot be used."""
    entry = get_entry(options.model)
    return entry.with_views(options.views) if options.views else entry


def selected_detector(options: argparse.Namespace) -> Entry:
    """The entry that `--detector` selects. Raises EntryError if there is none."""
    return get_detector(options.detector)
