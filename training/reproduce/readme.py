"""Is what the README says of the built-in models what their entries say? Its tables are made from them.

A table stands between `<!-- name -->` and `<!-- end -->`; `python -m training reproduce` makes them again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.reproduce import champions
from zoo.benchmarks import get_definition
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.leaderboard import home_benchmark, images_per_second, unseen_laboratories
from zoo.data.registry import augmented_sets
from zoo.entry import Entry, LocalisationScores, Metric, is_on_frames, usable_entries
from zoo.entry.schema import ExplanationQuality
from zoo.files import write_text
from zoo.scores.calibration import is_scaled
from zoo.sources.catalogue import BUILTIN, FolderSource, list_entries

PLACE = Path(__file__).parents[2] / "README.md"
MARK = re.compile(r"(<!-- ((?!end)\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
NOTHING = "–"


def renewed(text: str) -> str:
    """A README with its tables as the built-in entries have them."""
    entries = usable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))
    return MARK.sub(lambda found: found[1] + TABLES[found[2]](entries), text)


def renew(place: Path = PLACE) -> None:
    """Write the README at `place` anew, if there is one."""
    if place.is_file():
        write_text(place, renewed(place.read_text(encoding="utf-8")))


def models(entries: Sequence[Entry]) -> str:
    """One row a model: at home, elsewhere, corrupted, calibration, size, speed."""
    away = unseen_laboratories()[0]
    away_title = get_definition(away).data_set.title
    titles = [
        "model",
        "task",
        "test benchmark",
        "accuracy, by image",
        "by source cell",
        f"elsewhere ({away_title}), balanced",
    ]
    rows = []
    for entry in entries:
        home = home_benchmark(entry) or ""
        own = entry.evaluation.benchmarks.get(home)
        rate, size = images_per_second(entry), entry.weights.bytes if entry.weights else 0
        rows.append(
            [
                f"`{entry.id}`",
                entry.config.zoo.task,
                f"{home}: {own.n_images:,} images of {own.n_cells:,} cells" if own else NOT_SCORED,
                _share(champions.metric_of(entry, home, "accuracy")),
                _share(champions.metric_of(entry, home, "accuracy_by_cell")),
                _share(champions.metric_of(entry, away, "balanced_accuracy")),
                _share(_rest(champions.metric_of(entry, f"{home}-corrupted", "corruption_error"))),
                _share(
                    champions.metric_of(entry, home, "ece_calibrated" if is_scaled(entry) else "ece"), interval=False
                ),
                f"{size / 1e6:.1f} MB",
                f"{rate:.0f}" if rate else NOTHING,
            ]
        )
    return _markdown([*titles, "corrupted, balanced", "calibration error", "size", "images/s"], rows)


def trust(entries: Sequence[Entry]) -> str:
    """One row a model whose maps or gate were judged."""
    copied = ", ".join(copied.title for copied, _ in augmented_sets())
    away = unseen_laboratories()[0]
    titles = ["model", "maps that point at the cell, whole frames (by chance)", f"the same, {copied}'s fields", "ROAD"]
    rows = []
    for entry in entries:
        maps, gate = next(iter(entry.evaluation.explanations.values()), None), entry.evaluation.ood
        if not maps and not gate:
            continue
        every, unseen = (gate.foreign_pictures["all"], gate.other_laboratories.get(away)) if gate else (None, None)
        rows.append(
            [
                f"`{entry.id}`",
                _pointing(_measured(maps, on_frames=True)),
                _pointing(_measured(maps, on_frames=False)),
                _signed(maps.road if maps else None),
                f"{maps.sanity['100 %']:.2f}" if maps and maps.sanity else NOTHING,
                f"{100 * gate.false_alarms.flagged:.1f} % of {gate.false_alarms.images:,}" if gate else NOTHING,
                f"{every.auroc:.4f}, {every.flagged:.0%}, {every.rejected:.0%}".replace("%", " %")
                if every and every.auroc is not None
                else NOTHING,
                f"{unseen.flagged:.0%}, {unseen.rejected:.0%}".replace("%", " %") if unseen else NOTHING,
            ]
        )
    cells = f"{get_definition(away).data_set.title}'s cells: marked, held back"
    gates = ["false alarms at home", "what is no cell: AUROC, marked, held back", cells]
    return _markdown([*titles, "maps of random weights", *gates], rows)


TABLES: Mapping[str, Callable[[Sequence[Entry]], str]] = {
    "models": models,
    "champions": lambda entries: champions.rows([e for e in entries if e.id in champions.champion_recipes()]),
    "trust": trust,
}


def _rest(metric: Metric | None) -> Metric | None:
    """One minus a share."""
    if metric is None or metric.low is None or metric.high is None:
        return None
    return Metric(value=1 - metric.value, low=1 - metric.high, high=1 - metric.low)


def _share(metric: Metric | None, interval: bool = True) -> str:
    if metric is None:
        return NOT_SCORED
    said = f"{100 * metric.value:.1f} %"
    if interval and metric.low is not None and metric.high is not None:
        said += f" ({100 * metric.low:.1f} to {100 * metric.high:.1f})"
    return said


def _measured(maps: ExplanationQuality | None, on_frames: bool) -> LocalisationScores | None:
    """The first measure on whole smear frames, or on other pictures, whose cell's box is known."""
    return next((p for name, p in maps.localisation.items() if is_on_frames(name) == on_frames), None) if maps else None


def _pointing(found: LocalisationScores | None) -> str:
    if found is None:
        return NOTHING
    told = found.pointing
    return f"{100 * told.value:.0f} % ({100 * (told.low or 0):.0f} to {100 * (told.high or 1):.0f}) " + (
        f"({100 * found.chance:.0f} %)"
    )


def _signed(metric: Metric | None) -> str:
    if metric is None or metric.low is None or metric.high is None:
        return NOTHING
    return f"{metric.value:+.2f} ({metric.low:+.2f} to {metric.high:+.2f})"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    written = ["| " + " | ".join(line) + " |\n" for line in (titles, *rows)]
    return "".join([written[0], "|" + "---|" * len(titles) + "\n", *written[1:]])
