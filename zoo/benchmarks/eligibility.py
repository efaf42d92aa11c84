"""Rules for which models a benchmark may score, and benchmarks on which a model is not scored yet."""

from __future__ import annotations

import contextlib

from zoo.benchmarks.corruptions import split_name
from zoo.benchmarks.registry import BenchmarkSet, get_benchmark, laboratories_of, names
from zoo.data.registry import augmented_sets
from zoo.entry import Entry, EntryError, read_predictions

NOT_SCORED = "not scored"  # what tables show of a model without a score on a benchmark


def refusal(entry: Entry, benchmark: BenchmarkSet) -> str | None:
    """Reason not to score an entry on a benchmark, as a sentence; None where nothing is against it.

    The entry must name every class of the benchmark. Pictures of its own laboratory must be known not to be ones it was
    trained on.
    """
    if not benchmark.fits(entry):
        missing = sorted(set(benchmark.labels) - set(benchmark.mapping(entry.labels).values()))
        return f"{entry.id} cannot name {', '.join(missing)}, which {benchmark.name} asks for."
    if entry.members:
        return next((reason for member in entry.members if (reason := refusal(member, benchmark))), None)
    if benchmark.data_set.laboratory not in laboratories_of(entry) or _is_known_as_unseen(entry, benchmark):
        return None
    return (
        f"{entry.id} was trained on another split of {entry.data_set}: it may have seen pictures of {benchmark.name}."
    )


def is_scored(entry: Entry, benchmark: BenchmarkSet) -> bool:
    """Whether the entry keeps predictions for all of the benchmark's pictures, in its present version."""
    record = entry.evaluation.benchmarks.get(benchmark.name)
    if record is None:
        return False
    # a recipe's own test set has no version: it was scored on the split that the benchmark's rows were taken from
    wanted = benchmark.definition.version
    if (record.model_extra or {}).get("version", wanted) != wanted:
        return False
    with contextlib.suppress(EntryError):
        files = set(read_predictions(entry, benchmark.name)["file"].map(lambda name: split_name(name)[0]))
        return files == set(benchmark.rows["file"])
    return False


def unscored(entry: Entry) -> list[str]:
    """Names of the benchmarks that could score the entry and did not yet; none for an entry that cannot classify."""
    if not entry.usable:
        return []
    missing = [name for name in names() if name not in entry.evaluation.benchmarks]
    return [name for name in missing if refusal(entry, get_benchmark(name)) is None]


def _is_known_as_unseen(entry: Entry, benchmark: BenchmarkSet) -> bool:
    """Whether no picture of the benchmark can be one that an entry of the same laboratory was trained on."""
    tests = {name: b for name, b in entry.evaluation.benchmarks.items() if b.role == "test"}
    if any(b.leaky for b in tests.values()):
        return False
    data = benchmark.definition.data
    is_original = any(data == original.name for _, original in augmented_sets())
    if data not in entry.data_sets or is_original:
        # another cut of the same frames: it leaves out those that the official TRAIN was made of
        return entry.recipe.get("data", {}).get("split") == "official"
    # in predictions on several data sets, files are named with their data set
    files = set(benchmark.rows["file"].map(lambda file: f"{data}/{file}" if entry.mixed_data_sets else file))
    for name in tests:
        with contextlib.suppress(EntryError):
            if files <= set(read_predictions(entry, name)["file"]):
                return True
    return False
