"""The five published systems: what was reported, and the zoo's entries that reproduce it."""

from zoo.systems.published import PublishedModel, PublishedSystem, Wish, published_systems
from zoo.systems.reproductions import (
    PACKAGED,
    Count,
    Reproduction,
    count,
    honest_rows,
    own_protocol,
    reproductions,
    tested_on,
)
from zoo.systems.scores import SUMMARY, authors_scores, stored_one_hot_scores, summary_scores

__all__ = [
    "PACKAGED",
    "SUMMARY",
    "Count",
    "PublishedModel",
    "PublishedSystem",
    "Reproduction",
    "Wish",
    "authors_scores",
    "count",
    "honest_rows",
    "own_protocol",
    "published_systems",
    "reproductions",
    "stored_one_hot_scores",
    "summary_scores",
    "tested_on",
]
