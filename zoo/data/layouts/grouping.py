"""Groups of pictures that must stay on one side of a split, by a pattern on names or a table beside the pictures."""

from __future__ import annotations

import re
from dataclasses import replace

from zoo.data.layouts.registry import Reading
from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item


def check_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled `--group-pattern`. Raises DataError if it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-pattern {pattern!r} is no regular expression: {error}.") from error


def group_by_pattern(reading: Reading, options: ReadOptions) -> Reading:
    """The reading with groups named by `--group-pattern`. Raises DataError if no name matches."""
    pattern = check_pattern(options.group_pattern)
    items = [_grouped(item, pattern) for item in reading.items]
    hits = sum(item.group is not None for item in items)
    if items and not hits:
        raise DataError(
            f"--group-pattern {options.group_pattern!r} matches no picture's name, for example {items[0].file}."
        )
    told = f"{reading.reason}; --group-pattern matches {hits:,} of {len(items):,} names"
    return replace(reading, items=tuple(items), reason=told)


def _grouped(item: Item, pattern: re.Pattern[str]) -> Item:
    found = pattern.search(item.file)
    if found is None:
        return replace(item, group=None)
    return replace(item, group=found[1] if pattern.groups else found[0])
