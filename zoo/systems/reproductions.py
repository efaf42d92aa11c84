"""Entries that reproduce the published systems, by the weights that they began with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.entry import Benchmark, Entry
from zoo.systems.published import PublishedModel, PublishedSystem, published_systems

PUBLISHED, PACKAGED, SCRATCH = "_as_published", "_packaged", "_scratch"
# ending of an id → the weights that training began with, the nearest to the published ones first
STARTS = {"": "as published", PACKAGED: "packaged weights", SCRATCH: "random weights"}


@dataclass(frozen=True)
class Reproduction:
    """A published model trained again from one kind of start weights.

    Attributes:
        model: What was published.
        ending: Ending of its entries' ids, a key of `STARTS`.
        published: Entry under the authors' protocol, None if there is none.
        honest: Entry under the leak-free protocol, None if there is none.
    """

    model: PublishedModel
    ending: str
    published: Entry | None
    honest: Entry | None

    @property
    def id(self) -> str:
        """The recipe's id."""
        return self.model.id + self.ending

    @property
    def title(self) -> str:
        """The network, and the weights that training began with where they are not the published ones."""
        return f"{self.model.network} ({STARTS[self.ending]})" if self.ending else self.model.network

    @property
    def recipe(self) -> str:
        """Recipe and option that train it under the leak-free protocol, for the command `train`."""
        return f"{self.model.id} --scratch" if self.ending == SCRATCH else self.id


@dataclass(frozen=True)
class Count:
    """Number of published models that have a figure under the leak-free protocol, by the weights of its entry.

    A model counts once, with the weights that are nearest to the published ones.
    """

    models: int
    native: int
    packaged: int
    scratch: int

    @property
    def honest(self) -> int:
        """Models with a figure under the leak-free protocol."""
        return self.native + self.packaged + self.scratch

    @property
    def sentence(self) -> str:
        """Sentence that tells the number, apart by the weights that training began with."""
        return (
            f"{self.honest} of {self.models} models have a figure without leaks: {self.native} as published, "
            f"{self.packaged} from packaged weights, {self.scratch} from random weights in place of pretrained ones."
        )


def reproductions(system: PublishedSystem, entries: Sequence[Entry]) -> list[Reproduction]:
    """Every model of a system with its entries: one row for each kind of start weights, at least one a model."""
    by_id = {entry.id: entry for entry in entries}
    rows = []
    for model in system.models:
        found = [
            Reproduction(model, ending, by_id.get(model.id + ending + PUBLISHED), by_id.get(model.id + ending))
            for ending in STARTS
        ]
        rows += [row for row in found if row.published or row.honest] or found[:1]
    return rows


def honest_rows(rows: Sequence[Reproduction]) -> dict[str, Reproduction]:
    """The row with a figure under the leak-free protocol of each model that has one, by the model's id."""
    return {row.model.id: row for row in reversed(rows) if row.honest}


def count(entries: Sequence[Entry]) -> Count:
    """Count the models of all systems that have a figure under the leak-free protocol."""
    first = [
        row.ending
        for system in published_systems().values()
        for row in honest_rows(reproductions(system, entries)).values()
    ]
    models = sum(len(system.models) for system in published_systems().values())
    return Count(models, first.count(""), first.count(PACKAGED), first.count(SCRATCH))


def tested_on(entry: Entry | None) -> tuple[str, Benchmark] | None:
    """Name and scores of the first test set of an entry; None where there is none."""
    tests = entry.evaluation.benchmarks.items() if entry else ()
    return next(((name, one) for name, one in tests if one.role == "test" and "accuracy" in one.metrics), None)


def own_protocol(rows: Sequence[Reproduction]) -> list[Entry]:
    """The entries under the authors' protocol, one a model."""
    found = {row.model.id: row.published for row in reversed(rows) if row.published}
    return [found[key] for key in dict.fromkeys(row.model.id for row in rows) if key in found]
