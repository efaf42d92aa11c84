"""Section of a model card on accepted answers and on counts."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.entry import AcceptanceLimits, Entry
from zoo.entry.schema import AcceptedCells
from zoo.scores.acceptance import NEVER


def acceptance_lines(entry: Entry) -> list[str]:
    """Section on acceptance and counts in laboratories that the limits were chosen without."""
    lines, measured, counts = [], entry.acceptance, entry.evaluation.counts
    if measured is not None:
        limits, member = measured.limits, entry.config.zoo.deciding_member
        of = f"of {member}" if member else f"after a temperature of {measured.temperature:.2f}"
        lines.append(
            f"- Limits: confidence {of}: {_least(entry, limits)}; network {limits.network:.2f}, distance "
            f"{limits.distance:.2f}."
        )
        lines += _accepted(measured.laboratories, measured.unknown_kinds, "Limits chosen without it")
        lines += _accepted(measured.chosen_by, measured.unknown_chosen_by, "Limits in use, which it helped to choose")
    if counts is not None:
        held = ", ".join(f"{name} {100 * one['coverage']:.0f} %" for name, one in counts.laboratories.items())
        lines.append(
            f"- Counts: the model's error of a share has a standard deviation of {100 * counts.error:.1f} points. True "
            f"shares within 95 % limits: {held}."
        )
    how = "No cell of these laboratories was trained on. Limits chosen without one of them come with their temperature."
    return ["## Accepted answers and counts\n\n" + how + "\n\n" + "\n".join(lines)] if lines else []


def _least(entry: Entry, limits: AcceptanceLimits) -> str:
    """Limits of confidence in words."""
    if not limits.classes:
        return f"at least {100 * limits.confidence:.3g} %"
    least = {
        entry.class_names[label]: limit for label, limit in zip(entry.labels, limits.of(entry.labels), strict=True)
    }
    told = [f"{name} {100 * limit:.4g} %" for name, limit in least.items() if limit < NEVER]
    never = [name for name, limit in least.items() if limit >= NEVER]
    return f"at least {', '.join(told)}" + (f" (never accepted: {', '.join(never)})" if never else "")


def _accepted(laboratories: Mapping[str, AcceptedCells], unknown: Mapping[str, float], how: str) -> list[str]:
    """Lines on what is accepted in laboratories, and of kinds that the entry does not know."""
    lines = []
    for name, one in laboratories.items():
        right = "" if one.right is None else f", of these {100 * one.right:.1f} % right (mean over kinds)"
        error = f"expected calibration error {100 * one.ece:.1f} %"
        lines.append(f"- {how}: {name}: {100 * one.share:.0f} % of {one.images:,} cells accepted{right}; {error}.")
    if unknown:
        shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in unknown.items())
        lines.append(f"- {how}: accepted of kinds that the model does not know: {shares}.")
    return lines
