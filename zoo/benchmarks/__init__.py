"""Named evaluation sets, their scores and the leaderboard."""

from zoo.benchmarks.registry import (
    BOX,
    COLUMNS,
    CORRUPTED,
    CROSS_VALIDATION,
    LEFT_OUT,
    BenchmarkSet,
    Definition,
    benchmark_title,
    find_source,
    get_benchmark,
    get_definition,
    laboratories_of,
    names,
    published,
)

__all__ = [
    "BOX",
    "COLUMNS",
    "CORRUPTED",
    "CROSS_VALIDATION",
    "LEFT_OUT",
    "BenchmarkSet",
    "Definition",
    "benchmark_title",
    "find_source",
    "get_benchmark",
    "get_definition",
    "laboratories_of",
    "names",
    "published",
]
