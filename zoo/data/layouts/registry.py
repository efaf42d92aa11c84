"""Registered layouts of data sets: functions that read a tree of files if it has their layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from zoo.data.options import ReadOptions
from zoo.data.table import DataError, Item
from zoo.data.tree import Tree

Strength = Literal["marked", "named", "plain"]
STRENGTHS: tuple[Strength, ...] = ("marked", "named", "plain")  # a stronger layout goes before weaker ones


class AmbiguousError(DataError):
    """A data set that can be read in several ways; the message names them and the option that chooses one."""


@dataclass(frozen=True)
class Reading:
    """A data set as a layout reads it.

    Attributes:
        name: Name of the data set.
        layout: The layout in words.
        reason: How it was recognised.
        items: The pictures.
        problems: What was passed over → reason.
    """

    name: str
    layout: str
    reason: str
    items: tuple[Item, ...]
    problems: Mapping[str, str] = field(default_factory=dict)


Reader = Callable[[Tree, ReadOptions], Reading | None]


@dataclass(frozen=True)
class Layout:
    """A registered layout.

    Attributes:
        name: Name for `--layout`.
        text: The layout in words.
        strength: `marked` where a file of the layout's own marks it, `named` where names tell labels, `plain` where
            nothing does.
        read: Reads a tree; None if it has another layout. Raises DataError if it has this one and is damaged.
    """

    name: str
    text: str
    strength: Strength
    read: Reader


_layouts: dict[str, Layout] = {}


def layout(name: str, text: str, strength: Strength = "marked") -> Callable[[Reader], Reader]:
    """Register the decorated function as a layout.

    Args:
        name: Name for `--layout`.
        text: The layout in words, for help texts.
        strength: How surely it is recognised, see `Layout`.
    """

    def register(read: Reader) -> Reader:
        _layouts[name] = Layout(name, text, strength, read)
        return read

    return register


def registered() -> tuple[Layout, ...]:
    """All layouts, the stronger ones first."""
    return tuple(sorted(_layouts.values(), key=lambda one: STRENGTHS.index(one.strength)))


def is_chosen(options: ReadOptions, name: str) -> bool:
    """Whether `--layout` names this layout (`table:COLUMN` names `table`)."""
    return options.layout.partition(":")[0] == name
