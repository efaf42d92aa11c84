"""Options that say how a data set is read where it does not say so itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReadOptions:
    """A person's statements on how a data set is read.

    Attributes:
        layout: Name of a layout, or roles of folder levels as in `split/group/class`; empty: found.
        group: Column of a table, or first word of folders' names, that names what must stay on one side of a split.
        group_pattern: Regular expression on a picture's name; its first bracket, or all of it, names the group.
        labels: Label in the data set → label wanted, empty for labels that are left out; `*` stands for all unknown
            labels.
    """

    layout: str = ""
    group: str = ""
    group_pattern: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


AS_FOUND = ReadOptions()
