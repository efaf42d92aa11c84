"""CSV files that a spreadsheet opens without running anything in them.

A spreadsheet runs a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a formula, and such a text
may come from a file name (https://owasp.org/www-community/attacks/CSV_Injection). Exports put an apostrophe before
these texts; numbers stay numbers. `read_csv` takes it away again, so that nothing is changed for Python.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")


FORMULA = re.compile(r"'*[=+\-@\t\r]")  # apostrophes too: else reading could not tell ours from the text's own
GUARDED = re.compile(r"'+[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guarded(value: Any) -> Any:
    """A cell for a CSV file: text that a spreadsheet would run gets an apostrophe, anything else stays."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unguarded(value: Any) -> Any:
    """The cell that `guarded` was given."""
    return value[1:] if isinstance(value, str) and GUARDED.match(value) else value


def to_csv(table: pd.DataFrame, **options: Any) -> str:
    """The table as CSV without its index; texts and column names are guarded.

    Args:
        table: Rows.
        options: For pandas' `to_csv`.
    """
    text = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = table.assign(**{name: table[name].map(guarded) for name in text})
    safe.columns = [guarded(name) for name in table.columns]
    return safe.to_csv(index=False, **options)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV file that HemaZoo exported; cells are as they were before they were guarded.

    Args:
        path: The file.
        options: For pandas' `read_csv`.

    Example:
        >>> zoo.read_csv(Path("answers.csv"))["file"]
    """
    table = pd.read_csv(path, **options)
    text = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(**{name: table[name].map(unguarded) for name in text})
    table.columns = [unguarded(name) for name in table.columns]
    return table
