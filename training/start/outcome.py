"""Sentences on what a new entry is worth, for the end of a training."""

from __future__ import annotations

from zoo.entry import Benchmark, Entry, Metric

FEW = 5  # test pictures of a class, below which its recall says little


def describe_outcome(entry: Entry) -> list[str]:
    """Say how an entry did on its test split: balanced accuracy, recall of each class, and whether that is chance."""
    found = [one for one in entry.evaluation.benchmarks.values() if one.role == "test"]
    return [line for benchmark in found[:1] for line in _lines(benchmark)]


def _lines(test: Benchmark) -> list[str]:
    balanced = test.metrics["balanced_accuracy"]
    sizes = {label: sum(row) for label, row in zip(test.labels, test.confusion, strict=True)}
    right = {label: row[number] for number, (label, row) in enumerate(zip(test.labels, test.confusion, strict=True))}
    seen = [label for label, size in sizes.items() if size]
    shares = {label: 100 * right[label] / sizes[label] for label in seen}
    recalls = [f"{label} {right[label]} of {sizes[label]} ({shares[label]:.0f} %)" for label in seen]
    lines = [
        f"Test, {test.n_images:,} pictures: balanced accuracy {_text(balanced)}, test accuracy "
        f"{_text(test.metrics['accuracy'])}.",
        f"Recall: {', '.join(recalls)}.",
    ]
    chance = 1 / max(1, len(seen))
    if (balanced.value if balanced.low is None else balanced.low) <= chance:
        largest = max(sizes.values()) / max(1, test.n_images)
        lines.append(
            f"! No better than chance: guessing among {len(seen)} classes has a balanced accuracy of {chance:.2f}, and "
            f"always answering the most frequent class an accuracy of {largest:.2f}. Add pictures of the rarer classes."
        )
    few = [f"{label} ({size})" for label, size in sizes.items() if size < FEW]
    if few:
        lines.append(f"! Too few test pictures for a recall that says something: {', '.join(few)}.")
    return lines


def _text(metric: Metric) -> str:
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.4f} to {metric.high:.4f})"
    return f"{metric.value:.4f}{interval}"
