"""Do the champions reach what they were made for? Each of their figures made again, and set against its target.

What is trained, scored or left out already is not done again; a fresh zoo folder asks for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator

from training.evaluation import benchmarks as evaluate
from training.evaluation import leave_one_lab_out as left_out
from training.evaluation import ood as gate
from training.recipe import load_recipe, recipe_ids
from training.reproduce import results
from training.reproduce.texts import Target, texts
from zoo.benchmarks import LEFT_OUT, get_benchmark, names
from zoo.benchmarks.eligibility import NOT_SCORED, is_scored, refusal
from zoo.benchmarks.leaderboard import home_benchmark, images_per_second
from zoo.entry import Entry, Metric, usable_entries
from zoo.files import write_text
from zoo.serving.devices import device_name
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import FolderSource, list_entries

TABLE = results.TABLE.with_name("champions.md")
PREFIX = "champion"
SHORT = ("model.weights=imagenet", "model.views=1", "stages=[{epochs=4, lr=1e-3}]")
SPEED = 100  # images a second that a sibling classifies on two cores


def reproduce(
    data: Path, zoo: Path, runs: Path, seconds: float, accelerator: Accelerator, say: Callable[[object], None]
) -> list[str]:
    """Train, score and judge every champion into the folder `zoo`; returns what failed, each named."""
    wanted = results.wanted(only=champion_recipes())
    failed = results.reproduce(wanted, data, zoo, runs, seconds, accelerator, say)
    with Runtime(accelerator.device.type) as runtime:
        for name in names():
            benchmark = get_benchmark(name)
            asked = [e for e in champions(zoo) if not (refusal(e, benchmark) or is_scored(e, benchmark))]
            if asked:
                said = evaluate.evaluate(asked, benchmark, benchmark.pictures(data), runtime, say)
                failed += [f"{entry}: {reason}" for entry, reason in said.items()]
    for entry in champions(zoo):
        if entry.other_laboratories is None and not entry.members:
            recipe = load_recipe(entry.id, SHORT)
            found = left_out.leave_out(recipe, data, runs / "loso" / recipe.id, accelerator, say)
            left_out.add(entry, recipe, found, device_name(accelerator.device))
        _trust_and_speed(entry, data, accelerator.device.type, say)
    return failed


def _trust_and_speed(entry: Entry, data: Path, device: str, say: Callable[[object], None]) -> None:
    """The entry's gate, with how good it is, and its images a second, where they are missing."""
    if not entry.members and entry.evaluation.ood is None:
        with Runtime(device) as runtime:
            gate.fit(entry, data, runtime)
        # the gate is loaded with its model: a new runtime sees it
        with Runtime(device) as runtime:
            gate.measure(entry, data, runtime, say)
    if images_per_second(entry) is None:
        with Runtime(device) as runtime:
            evaluate.put_speed(entry, runtime, get_benchmark(home_benchmark(entry)).pictures(data))


def champion_recipes() -> list[str]:
    """Ids of the champions' recipes."""
    return [name for name in recipe_ids() if name.startswith(PREFIX)]


def champions(zoo: Path) -> list[Entry]:
    """The champions in a folder of entries that can be used."""
    wanted = set(champion_recipes())
    return [entry for entry in usable_entries(list_entries([FolderSource(zoo, str(zoo))])) if entry.id in wanted]


def table(entries: Sequence[Entry]) -> str:
    """What was reached, as a page in Markdown."""
    return (
        "# Champions\n\n"
        "Generated from the entries by `python -m training reproduce --champions`; do not edit. 95 % intervals by "
        "bootstrap over source cells; **bold** where the target is reached.\n\n" + rows(entries)
    )


def rows(entries: Sequence[Entry]) -> str:
    """A line a target, a column a champion; bold where it is reached."""
    lines = [
        "| benchmark | target | " + " | ".join(f"`{entry.id}`" for entry in entries) + " |",
        "|---|---|" + "---|" * len(entries),
    ]
    for target in texts().targets:
        sign = "≤" if target.at_most else "≥"
        lines.append(f"| {target.title} | {sign} {100 * target.value:.1f} % | " + _cells(target, entries))
    left = [metric_of(entry, f"{entry.data_set}{LEFT_OUT}", "balanced_accuracy") for entry in entries]
    lines.append("| laboratories left out, balanced (what recipes are chosen by) | | " + _texts(left))
    speeds = [(rate, f"{rate:,.0f}") if (rate := images_per_second(entry)) else (0, "–") for entry in entries]
    marked = " | ".join(f"**{text}**" if rate > SPEED else text for rate, text in speeds)
    lines.append(f"| images a second, two cores | > {SPEED} for a small sibling | {marked} |")
    return "\n".join(lines) + "\n"


def write_table(path: Path, zoo: Path) -> None:
    """Write `table` of the champions in `zoo`."""
    write_text(path, table(champions(zoo)))


def metric_of(entry: Entry, benchmark: str, metric: str) -> Metric | None:
    """A stored metric of an entry on a benchmark, None where it was not measured."""
    found = entry.evaluation.benchmarks.get(benchmark)
    return found.metrics.get(metric) if found else None


def _cells(target: Target, entries: Sequence[Entry]) -> str:
    found = [metric_of(entry, target.benchmark, target.metric) for entry in entries]
    sign = -1 if target.at_most else 1
    return _texts(found, [metric is not None and sign * metric.value >= sign * target.value for metric in found])


def _texts(found: Sequence[Metric | None], bold: Sequence[bool] | None = None) -> str:
    texts = []
    for metric, strong in zip(found, bold or [False] * len(found), strict=True):
        text = NOT_SCORED
        if metric is not None:
            text = f"{100 * metric.value:.1f}"
            if metric.low is not None and metric.high is not None:
                text += f" ({100 * metric.low:.1f} to {100 * metric.high:.1f})"
        texts.append(f"**{text}**" if strong else text)
    return " | ".join(texts) + " |"
