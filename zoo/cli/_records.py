"""Printing of one picture's record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def print_record(record: dict[str, Any], as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    """Print a record beside a progress bar.

    Args:
        record: Plain values; one with `error` could not be answered.
        as_json: Print it as one line of JSON on stdout.
        line: Makes the line for people, on stdout; errors go to stderr.
    """
    if as_json:
        tqdm.write(json.dumps(record, ensure_ascii=False), file=sys.stdout)
    elif "error" in record:
        tqdm.write(f"{record['file']}: {record['error']}", file=sys.stderr)
    else:
        tqdm.write(line(record), file=sys.stdout)
