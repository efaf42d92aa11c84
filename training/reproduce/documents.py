"""Renew the tables of README.md and docs/models.md from the built-in entries.

A table stands between the lines `<!-- NAME -->` and `<!-- /NAME -->`; `python -m training reproduce` renews them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.evaluation.samples import scores_by_sample
from training.reproduce import champions
from training.reproduce.formats import MISSING, markdown_table, metric_of, percent
from zoo.benchmarks import CORRUPTED, get_definition
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.leaderboard import (
    OtherLaboratoryScores,
    home_benchmark,
    images_per_second,
    other_laboratories,
    unseen_laboratories,
)
from zoo.data.registry import augmented_sets
from zoo.entry import Entry, LocalisationScores, Metric, is_on_frames, readable_entries, usable_entries
from zoo.entry.schema import ExplanationQuality, OodQuality
from zoo.files import write_text
from zoo.limits import every_limit
from zoo.scores.calibration import is_scaled
from zoo.scores.sample.samples import known_kinds, samples
from zoo.sources.catalogue import BUILTIN, FolderSource, list_entries
from zoo.systems import authors_scores, count, honest_rows, published_systems, reproductions, tested_on

Table = Callable[[Sequence[Entry]], str]

ROOT = Path(__file__).parents[2]
README, MODELS, SAMPLES = ROOT / "README.md", ROOT / "docs" / "models.md", ROOT / "docs" / "samples.md"
OPERATIONS, SYSTEMS = ROOT / "docs" / "operations.md", ROOT / "docs" / "systems.md"
AWAY_TITLES = ["other laboratories, mean", "other laboratories, worst", "the same asked with all kinds alike, mean"]
TABLE_BLOCK = re.compile(r"(<!-- (?P<name>\w+) -->\n).*?(?=<!-- /(?P=name) -->)", re.DOTALL)
MAX_SHORT_ROWS = 8  # models in the README


def renew() -> None:
    """Write the tables of all documents that exist; a package without its documents has none."""
    for path in DOCUMENTS:
        if path.is_file():
            write_text(path, renewed(path))


def renewed(path: Path) -> str:
    """The text of a document with tables made anew from the built-in entries."""
    entries = usable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))
    tables = DOCUMENTS[path]
    return TABLE_BLOCK.sub(lambda block: block[1] + tables[block["name"]](entries), path.read_text(encoding="utf-8"))


def short_table(entries: Sequence[Entry]) -> str:
    """The models that do best in laboratories no model was trained on, but for reproduced published systems."""
    own = [
        (entry, scores)
        for entry in entries
        if not entry.recipe.get("system") and (scores := other_laboratories(entry)) is not None
    ]
    own.sort(key=lambda item: (bool(item[1].missing), -round(item[1].mean.value, 3), -_home_accuracy(item[0])))
    rows = []
    for entry, scores in own[:MAX_SHORT_ROWS]:
        rate = images_per_second(entry)
        rows.append(
            [
                f"`{entry.id}`",
                entry.config.zoo.task,
                _percent(metric_of(entry, home_benchmark(entry) or "", "balanced_accuracy")),
                *_away_cells(scores),
                _size(entry),
                f"{rate:.0f}" if rate else MISSING,
            ]
        )
    titles = ["model", "task", "home", *AWAY_TITLES, "size", "images/s"]
    return markdown_table(titles, rows)


def scores_table(entries: Sequence[Entry]) -> str:
    """One row per model: home, other laboratories, corrupted pictures, calibration, size and speed."""
    rows = []
    for entry in entries:
        home = home_benchmark(entry) or ""
        tested = entry.evaluation.benchmarks.get(home)
        rate = images_per_second(entry)
        calibration = metric_of(entry, home, "ece_calibrated" if is_scaled(entry) else "ece")
        rows.append(
            [
                f"`{entry.id}`",
                entry.config.zoo.task,
                f"{home}: {tested.n_images:,} images of {tested.n_cells:,} cells" if tested else NOT_SCORED,
                _percent(metric_of(entry, home, "accuracy")),
                _percent(metric_of(entry, home, "accuracy_by_cell")),
                *_away_cells(other_laboratories(entry)),
                _percent(_complement(metric_of(entry, f"{home}{CORRUPTED}", "corruption_error"))),
                _percent(calibration, interval=False),
                _size(entry),
                f"{rate:.0f}" if rate else MISSING,
            ]
        )
    titles = [
        "model",
        "task",
        "home test set",
        "accuracy by image",
        "accuracy by source cell",
        *AWAY_TITLES,
        "balanced accuracy on corrupted pictures",
        "calibration error",
        "size",
        "images/s",
    ]
    return markdown_table(titles, rows)


def trust_table(entries: Sequence[Entry]) -> str:
    """One row per model whose explanation maps or out-of-distribution limits were measured."""
    copies = ", ".join(copied.title for copied, _ in augmented_sets())
    rows = []
    for entry in entries:
        maps, ood = next(iter(entry.evaluation.explanations.values()), None), entry.evaluation.ood
        if maps or ood:
            rows.append([f"`{entry.id}`", *_map_cells(maps), *_ood_cells(ood)])
    titles = [
        "model",
        "maps that point at the cell, whole frames (by chance)",
        f"the same, fields of {copies}",
        "ROAD",
        "correlation with maps of random weights",
        "false alarms at home",
        "pictures without a blood cell: AUROC, flagged, rejected",
        "cells of validation laboratories: flagged, rejected",
    ]
    return markdown_table(titles, rows)


def samples_table(entries: Sequence[Entry]) -> str:
    """One row per champion and validation laboratory, one column per sample; bold for the sample that fits."""
    ids, names = champions.champion_recipes(), list(samples())
    rows = []
    for found in scores_by_sample([entry for entry in entries if entry.id in ids]):
        cells = [percent(found.scores[name], unit="") if name in found.scores else MISSING for name in names]
        marked = [f"**{cell}**" if name == found.usual else cell for name, cell in zip(names, cells, strict=True)]
        rows.append([f"`{found.entry}`", found.title, *marked])
    return markdown_table(["model", "validation laboratory", *names], rows)


def shares_table(entries: Sequence[Entry]) -> str:
    """One row per kind of cell: its prior share in each sample, in percent, for a model of all kinds."""
    known = [name for name, sample in samples().items() if not sample.as_trained]
    blood = samples()[known[0]].weights
    kinds = sorted(known_kinds(), key=lambda kind: (-blood.get(kind, 1.0), kind))
    uniform = np.full(len(kinds), 1 / len(kinds))
    priors = {name: samples()[name].prior(kinds, uniform) for name in known}
    rows = [[kind, *(f"{100 * priors[name][number]:.1f} %" for name in known)] for number, kind in enumerate(kinds)]
    return markdown_table(["kind", *known], rows)


def champions_table(entries: Sequence[Entry]) -> str:
    """The champions' scores against their targets."""
    ids = champions.champion_recipes()
    return champions.render_table([entry for entry in entries if entry.id in ids])


def systems_table(_: Sequence[Entry]) -> str:
    """One row per published model and kind of start weights: reported, leak-free or the command, elsewhere."""
    entries = readable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))
    rows = []
    for system in published_systems().values():
        found = reproductions(system, entries)
        answered = honest_rows(found)
        for row in found:
            published, honest = authors_scores(row).get("accuracy"), tested_on(row.honest)
            counted = " subset accuracy" if row.model.one_hot else ""
            other = answered.get(row.model.id)
            command = f"`python -m training train {row.recipe} --data {system.data.upper()}`: {row.model.missing}"
            rows.append(
                [
                    system.letter,
                    f"`{row.id}`",
                    row.model.reported,
                    _percent(published) + counted if published else NOT_SCORED,
                    _percent(honest[1].metrics["accuracy"]) if honest else f"see `{other.id}`" if other else command,
                    *_away_cells(other_laboratories(row.honest) if row.honest else None)[:2],
                ]
            )
    text = f"{count(entries).sentence}\n\n"
    titles = ["system", "recipe", "reported", "their protocol", "without leaks, or how", *AWAY_TITLES[:2]]
    return text + markdown_table(titles, rows)


def wishes_table(_: Sequence[Entry]) -> str:
    """One row for each further model that a system's authors wished for: leak-free, or why there is no figure."""
    entries = {entry.id: entry for entry in readable_entries(list_entries([FolderSource(BUILTIN, "built-in")]))}
    rows = []
    for system in published_systems().values():
        for wish in system.wishes:
            found, base = (tested_on(entries.get(name)) for name in (wish.id, wish.base))
            rows.append(
                [
                    system.letter,
                    wish.wish,
                    f"`{wish.id}`",
                    _percent(found[1].metrics["accuracy"]) if found else f"not yet: {wish.missing}",
                    f"`{wish.base}`: {_percent(base[1].metrics['accuracy'] if base else None)}",
                    *_away_cells(other_laboratories(entries[wish.id]) if found else None)[:2],
                ]
            )
    return markdown_table(["system", "wish", "recipe", "without leaks", "compared with", *AWAY_TITLES[:2]], rows)


def limits_table(_: Sequence[Entry]) -> str:
    """Every limit with its default and the environment variable that changes it."""
    rows = [[limit.bounds, f"{limit.default:,} {limit.unit}", f"`{limit.variable}`"] for limit in every_limit()]
    return markdown_table(["limit", "default", "environment variable"], rows)


DOCUMENTS: Mapping[Path, Mapping[str, Table]] = {
    README: {"models": short_table},
    MODELS: {"models": scores_table, "champions": champions_table, "trust": trust_table},
    SAMPLES: {"samples": samples_table, "shares": shares_table},
    OPERATIONS: {"limits": limits_table},
    SYSTEMS: {"figures": systems_table, "wishes": wishes_table},
}


def _away_cells(scores: OtherLaboratoryScores | None) -> list[str]:
    """Cells under AWAY_TITLES."""
    if scores is None:
        return [NOT_SCORED] * len(AWAY_TITLES)
    worst = f"{percent(scores.worst.score)}, {scores.worst.laboratory}"
    alike = scores.mean_alike
    count = len(scores.laboratories)
    part = f", {count} of {count + len(scores.missing)} laboratories" if scores.missing else ""
    return [percent(scores.mean) + part, worst, percent(alike, interval=False) if alike else MISSING]


def _home_accuracy(entry: Entry) -> float:
    metric = metric_of(entry, home_benchmark(entry) or "", "balanced_accuracy")
    return metric.value if metric else 0.0


def _size(entry: Entry) -> str:
    return f"{(entry.weights.bytes if entry.weights else 0) / 1e6:.1f} MB"


def _percent(metric: Metric | None, interval: bool = True) -> str:
    return NOT_SCORED if metric is None else percent(metric, interval)


def _complement(metric: Metric | None) -> Metric | None:
    """An error as the fraction that is right."""
    if metric is None or metric.low is None or metric.high is None:
        return None
    return Metric(value=1 - metric.value, low=1 - metric.high, high=1 - metric.low)


def _map_cells(maps: ExplanationQuality | None) -> list[str]:
    """Cells of the trust table about explanation maps."""
    random_weights = f"{maps.sanity['100 %']:.2f}" if maps and maps.sanity else MISSING
    on_frames, on_fields = _pointing(maps, on_frames=True), _pointing(maps, on_frames=False)
    return [on_frames, on_fields, _signed(maps.road if maps else None), random_weights]


def _pointing(maps: ExplanationQuality | None, on_frames: bool) -> str:
    """The pointing game on whole smear frames, or on other pictures, whose cell's box is known."""
    scores: LocalisationScores | None = None
    if maps:
        scores = next((s for name, s in maps.localisation.items() if is_on_frames(name) == on_frames), None)
    if scores is None:
        return MISSING
    hit = scores.pointing
    interval = f"{100 * (hit.low or 0):.0f} to {100 * (hit.high or 1):.0f}"
    return f"{100 * hit.value:.0f} % ({interval}) ({100 * scores.chance:.0f} %)"


def _ood_cells(ood: OodQuality | None) -> list[str]:
    """Cells of the trust table about out-of-distribution limits."""
    if ood is None:
        return [MISSING] * 3
    alarms, foreign = ood.false_alarms, ood.foreign_pictures["all"]
    elsewhere = [(name, ood.other_laboratories.get(name)) for name in unseen_laboratories()]
    cells = [
        f"{get_definition(name).data_set.title} {_whole(rates.flagged)}, {_whole(rates.rejected)}"
        for name, rates in elsewhere
        if rates
    ]
    no_cell = MISSING
    if foreign.auroc is not None:
        no_cell = f"{foreign.auroc:.4f}, {_whole(foreign.flagged)}, {_whole(foreign.rejected)}"
    return [
        f"{100 * alarms.flagged:.1f} % of {alarms.images:,}",
        no_cell,
        "; ".join(cells) or MISSING,
    ]


def _whole(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _signed(metric: Metric | None) -> str:
    if metric is None or metric.low is None or metric.high is None:
        return MISSING
    return f"{metric.value:+.2f} ({metric.low:+.2f} to {metric.high:+.2f})"
