"""The training commands as functions, for scripts and notebooks.

    import training

    training.audit("my-cells", "reports/my-cells")
    entry = training.train("my-cells", epochs=6)
    training.evaluate(entry, own="their-cells", name="their-laboratory")

Each function runs the command of its name. Keyword arguments are the command's options with underscores for dashes
(`batch_size=16` is `--batch-size 16`, `restart=True` is `--restart`, `set=["optimizer.clip_norm=1"]` is `--set`), with
the same defaults. Progress is printed on stderr; what the command refuses is raised, with the same sentence.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from training.errors import UsageError
from zoo.cli.common import load_command
from zoo.entry import Entry, load_entry

if TYPE_CHECKING:
    from training.prepare.manifest import Manifest
    from zoo.adaptation import Adapted
    from zoo.audits.reports import Audit

Place = str | PathLike[str]


def train(data: Place | None, out: Place | None = None, recipe: str | None = None, **options: Any) -> Entry:
    """Train a recipe on a folder of pictures and write a zoo entry.

    Args:
        data: The data set's folder or file.
        out: Folder of the entry; None: the folder's name, in `my-zoo` or the first folder of HEMAZOO_ZOO.
        recipe: A recipe's id, or a .toml file; None: the default for pictures of one's own, after an audit.
        options: `epochs`, `batch_size`, `lr`, `seed`, `input_size`, `model`, `set`, `split`, `device`, `resume`,
            `restart`, … as of `python -m training train --help`.

    Returns:
        The new entry.

    Raises:
        UsageError, RecipeError: An option does not fit.
        DataError, WeightsError, FitError, CheckpointError, EntryError: See `training.run.train`.

    Example:
        >>> training.train("my-cells", epochs=6, seed=1).evaluation.benchmarks["my-cells-test"].metrics
    """
    given = [recipe] if recipe is not None else []
    entry = _command("train").train_entry(_options("train", *given, data=data, out=out, **options))
    if entry is None:
        raise UsageError("Only the first of several processes returns an entry.")
    return entry


def audit(data: Place, out: Place, **options: Any) -> Audit:
    """Look for copies, leaks, outliers and wrong labels in a data set; see `python -m training audit --help`.

    Returns:
        The report, which is also written into the folder `out`.

    Raises:
        DataError: No picture can be read.
        ExistsError: `out` exists, and `restart=True` is not given.
    """
    return _command("audit").audit_data(_options("audit", data, out=out, **options))


def split(data: Place, out: Place, scheme: str = "grouped", **options: Any) -> list[Manifest]:
    """Split a data set so that copies of one cell stay on one side; see `python -m training split --help`.

    Returns:
        The manifest that is written to the file `out`; of the scheme kfold one for each fold.

    Raises:
        DataError: The data cannot be split.
        UsageError: `out` exists, and `restart=True` is not given.
    """
    return _command("split").split_data(_options("split", data, out=out, scheme=scheme, **options))


def evaluate(entry: Entry | Place, **options: Any) -> Entry:
    """Score an entry on benchmarks, or on a labelled folder of one's own (`own=`).

    Args:
        entry: An entry, its folder or its id.
        options: As of `python -m training evaluate --help`: `own`, `name`, `benchmark`, `data`, …

    Returns:
        The entry with its new scores.

    Raises:
        UsageError: An option does not fit, or the entry cannot be scored.
        DataError: The pictures cannot be used.
    """
    module = _command("evaluate")
    name = _name(entry)
    if module.run(_options("evaluate", name, **options)):
        raise UsageError(f"{name} was not scored: the reason is printed above.")
    return load_entry(module.find_entry(name).folder)


def adapt(entry: Entry | Place, data: Place, out: Place, **options: Any) -> Adapted:
    """Adapt an entry to a laboratory with a few of its cells; see `python -m training adapt --help`.

    Returns:
        The new entry, with its cross-validated scores before and after.

    Raises:
        EntryError: The entry cannot be adapted, or there are too few pictures.
        DataError: The data cannot be read.
    """
    return _command("adapt").adapt_entry(_options("adapt", _name(entry), data=data, out=out, **options))[0]


def _name(entry: Entry | Place) -> str:
    return str(entry.folder) if isinstance(entry, Entry) else str(entry)


def _command(name: str) -> Any:
    return load_command("training.cli", name)


class _Parser(argparse.ArgumentParser):
    """A parser that raises what it refuses."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _options(command: str, *positional: Place, **given: Any) -> argparse.Namespace:
    """Parse keyword arguments as the command line does."""
    parser = _Parser(command, add_help=False, allow_abbrev=False)
    _command(command).add_arguments(parser)
    words = [str(value) for value in positional]
    for name, value in given.items():
        words += _words(f"--{name.replace('_', '-')}", value)
    return parser.parse_args(words)


def _words(option: str, value: Any) -> Sequence[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, tuple):  # a size
        return [option, "x".join(str(part) for part in value)]
    if isinstance(value, list):
        return [word for part in value for word in (option, str(part))]
    return [option, str(value)]
