"""Models that a comparison opens with."""

from __future__ import annotations

import pytest

from zoo.benchmarks.comparison import benchmarks_of, ranked_ids, tested, varied_ids
from zoo.entry import readable_entries
from zoo.sources.catalogue import list_entries


@pytest.fixture(scope="module")
def entries():
    return list(tested(readable_entries(list_entries())).values())


@pytest.mark.parametrize("first", [None, "champion8", "pbc8-efficientnet-lite2", "cnn60"])
def test_a_comparison_opens_with_models_that_differ(entries, first):
    known = {entry.id: entry for entry in entries}
    chosen = varied_ids(entries, first)
    assert chosen[0] == (first or ranked_ids(entries)[0])
    assert len(set(chosen)) == 3
    tests = [set(benchmarks_of([known[name]])) for name in chosen]
    assert tests[0] & tests[1] and tests[0] & tests[2]
    assert [bool(known[name].system) for name in chosen[1:]] == [False, True]


def test_where_there_are_few_models_those_are_taken(entries):
    few = [entry for entry in entries if not entry.system][:2]
    assert sorted(varied_ids(few)) == sorted(entry.id for entry in few)
    assert varied_ids([]) == []
