"""Show where in a picture the evidence for a class is.

Writes FILE.CLASS.overlay.png, the map over the picture, and FILE.CLASS.npy, the raw map.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import IO

import numpy as np

from zoo.attribution import DEFAULT, METHODS, MODEL_FREE
from zoo.attribution.overlay import overlay
from zoo.cli._model import add_model_arguments, selected_model
from zoo.cli.common import OK, fail, print_message
from zoo.files import atomic_path, printable
from zoo.imaging.decode import PictureError, read_picture, split_page
from zoo.progress import progress_bar
from zoo.serving.bulk import as_explanation_record
from zoo.serving.requests import Ticket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = "Methods: " + "; ".join(f"{name} ({method.about})" for name, method in METHODS.items())
    parser.add_argument("path", type=Path, metavar="PATH", help="a picture")
    add_model_arguments(parser)
    parser.add_argument("--class", dest="label", metavar="LABEL", help="class to explain (default: the predicted one)")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help=f"(default: {DEFAULT}, or {MODEL_FREE} for models without gradients)",
        metavar="M",
    )
    parser.add_argument("--against", metavar="LABEL", help="show the evidence for the class rather than for this one")
    parser.add_argument("--layer", metavar="PATH", help="layer to explain (default: the entry's)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder to write to (default: here)")
    parser.add_argument(
        "--opacity",
        type=_fraction,
        default=0.5,
        metavar="0..1",
        help="of the map in the overlay (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Explain one picture and write the map."""
    from zoo.serving.runtime import Runtime

    entry = selected_model(options)
    try:
        picture = read_picture(options.path)
        image = picture.image
    except PictureError as error:
        if options.json:
            print(json.dumps({"file": printable(str(options.path)), "error": str(error)}, ensure_ascii=False))
        return fail(f"{printable(str(options.path))}: {error}")
    with (
        Runtime(options.device, options.precision, backend=options.backend) as runtime,
        progress_bar(None, entry.id, total=100, unit="%", leave=False) as bar,
    ):

        def show_progress(ticket: Ticket) -> None:
            bar.update(round(100 * ticket.progress) - bar.n)

        explanation = runtime.explain(
            entry,
            image,
            options.label,
            options.method,
            options.against,
            options.layer,
            watch=show_progress,
            sample=options.sample,
        )
    label = explanation.label
    name, page = split_page(options.path.name)
    stem = f"{Path(name).stem}{f'-page{page}' if page else ''}.{_safe(label)}"
    drawn, raw = options.out / f"{stem}.overlay.png", options.out / f"{stem}.npy"
    with atomic_path(drawn) as temporary:
        overlay(image, explanation.values, options.opacity).save(temporary, "PNG")
    with atomic_path(raw) as temporary, temporary.open("wb") as file:
        _save_array(file, explanation.values)
    if options.json:
        name = printable(str(options.path))
        record = as_explanation_record(name, picture.notes, explanation, str(drawn), str(raw))
        print(json.dumps(record, ensure_ascii=False))
    else:
        answer = explanation.prediction
        for message in filter(None, (*picture.notes, answer.warning)):
            print_message(message)
        if answer.label != answer.network_label:
            print_message(
                f"Asked with the sample “{answer.sample}” the answer is {answer.label}; the network alone says "
                f"{answer.network_label}. Explain either with --class."
            )
        print(f"{label}\t{explanation.prediction.probabilities[label]:.4f}\t{drawn}\t{raw}")
    return OK


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _save_array(file: IO[bytes], values: np.ndarray) -> None:
    np.save(file, values, allow_pickle=False)


def _safe(label: str) -> str:
    """The label as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in label)
