"""Readers of data sets, one file a layout; adding one is adding a file with NAME, ORDER, matches and read."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from zoo.data.table import DataError, DataSet, named


@cache
def layouts() -> tuple[ModuleType, ...]:
    """All readers, the most specific layout first (their ORDER)."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return tuple(sorted((importlib.import_module(f"{__name__}.{name}") for name in names), key=lambda m: m.ORDER))


def read_dataset(place: str | Path) -> DataSet:
    """Read the data set at `place`, a folder or a file, whatever its layout; pictures are decoded later.

    Raises DataError if there is none, its layout is unknown, it is damaged, or it holds no picture at all.
    """
    path = Path(place).expanduser()
    try:
        path = path.resolve(strict=True)
        reader = next((layout for layout in layouts() if layout.matches(path)), None)
        if reader is None:
            raise DataError(f"{path} is no data set we know. We read: {'; '.join(m.NAME for m in layouts())}.")
        found = reader.read(path)
    except FileNotFoundError as error:
        raise DataError(f"There is nothing at {error.filename or path}. Name the data set's folder or file.") from error
    except (OSError, RuntimeError) as error:
        # RuntimeError: what pathlib says of a loop of links before Python 3.13
        reason = getattr(error, "strerror", None) or "it is a loop of links"
        raise DataError(f"{getattr(error, 'filename', None) or path} cannot be read: {reason}.") from error
    if not found.items:
        why = f" {named([f'{k}: {v}' for k, v in found.problems.items()], 2)}" if found.problems else ""
        raise DataError(f"The data set {path} is empty: there is no picture in it.{why}")
    return found
