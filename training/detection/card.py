"""Model card of a detector, from its entry's files."""

from __future__ import annotations

from zoo.detection.benchmarks import field_benchmarks
from zoo.detection.objects import OBJECTS
from zoo.entry import Entry
from zoo.entry.schema import Metric

SHOWN = {
    "AP50": "AP50",
    "AP50:95": "AP50:95",
    "recall": "recall",
    "precision": "precision",
    "count error": "count error, median",
    "diameter error": "diameter error, median",
}
FRONT = """---
library_name: pytorch
license: apache-2.0
pipeline_tag: object-detection
tags:
- object-detection
- blood-cells
- hematology
- hemazoo
---
"""
USE = """
Finds white cells (every nucleated cell), red cells and platelets in pictures of blood smears; a classifier names the
white ones. **Not a medical device.**

```
python -m zoo cells FIELD… --detector {id} --draw boxes
```
"""
LIMITS = """
## Limits

- A picture is searched at the scale of its red cells. Where none is seen, and the white cells have an unusual size, the
  scale can be wrong, and cells are missed.
- Fields of laboratories that training did not see were looked at through crops of single cells only.
- Labels of the evaluation sets were made semi-automatically: a few boxes are missing, loose, or of another object.
"""


def render_detector_card(entry: Entry, repo: str = "") -> str:
    """Markdown of the card; `repo` is its repository on the Hub, NAMESPACE/NAME, if it has one."""
    limits = entry.config.zoo.detector.limits if entry.config.zoo.detector else {}
    counted = ", ".join(f"{name} {limits[name]:.2f}" for name in OBJECTS if name in limits)
    parts = [FRONT, f"# {entry.title}", USE.format(id=entry.id), f"Limits of confidence: {counted}."]
    if repo:
        parts.append(f"\nTo use it from the Hub: `HEMAZOO_ZOO=hub:{repo}`, which lists it as `{repo}`.")
    if entry.evaluation.fields:
        parts += ["\n## Scores\n", "95 % intervals over fields that training did not see.\n", *_tables(entry)]
    return "\n".join([*parts, LIMITS])


def _tables(entry: Entry) -> list[str]:
    known = field_benchmarks()
    lines = []
    for name, scores in entry.evaluation.fields.items():
        one = known.get(name)
        lines += [f"### {one.definition.title if one else name}\n"]
        lines += [f"{one.definition.note}\n"] if one and one.definition.note else []
        lines += ["| | " + " | ".join(SHOWN.values()) + " |", "|---|" + "---|" * len(SHOWN)]
        for kind in OBJECTS:
            found = [scores.get(f"{kind}: {key}") for key in SHOWN]
            if any(found):
                lines.append(f"| {kind} | " + " | ".join(map(_percent, found)) + " |")
        lines.append("")
    return lines


def _percent(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    interval = (
        "" if metric.low is None or metric.high is None else f" ({100 * metric.low:.1f} to {100 * metric.high:.1f})"
    )
    return f"{100 * metric.value:.1f} %{interval}"
