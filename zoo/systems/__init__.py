"""The five published systems: what was reported, and the zoo's entries that reproduce it."""

from zoo.systems.published import PublishedModel, PublishedSystem, published_systems
from zoo.systems.reproductions import PACKAGED, Count, Reproduction, count, own_protocol, reproductions, tested_on

__all__ = [
    "PACKAGED",
    "Count",
    "PublishedModel",
    "PublishedSystem",
    "Reproduction",
    "count",
    "own_protocol",
    "published_systems",
    "reproductions",
    "tested_on",
]
