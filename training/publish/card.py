"""What does a model's card say? All of it from the entry's own files, in the Hub's model-card format."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import EvalResult, ModelCardData

from training.prepare.splits import Split
from training.recipe import (
    PUBLISHED,
    SCRATCH,
    Recipe,
    RecipeError,
    Stage,
    differences,
    load_recipe,
    read_recipe,
    recipe_ids,
)
from zoo.architectures import is_own
from zoo.attribution import METHODS
from zoo.benchmarks.eligibility import NOT_SCORED, unscored
from zoo.benchmarks.scoring import METRICS
from zoo.entry import Benchmark, Entry, OodRates, is_on_frames, load_entry
from zoo.entry.write import write_card

LICENCE = "apache-2.0"
SHOWN = (
    "accuracy",
    "balanced_accuracy",
    "accuracy_by_cell",
    "macro_f1",
    "macro_auc",
    "ece",
    "ece_calibrated",
    "corruption_error",
)


def renew_card(folder: Path, repo: str = "", pictures: Mapping[str, str] | None = None) -> bool:
    """Write an entry's card again from its files; False where its recipe is none of this version's.

    `repo` is its repository on the Hub, where it has one, and `pictures` what lies beside it: text by path.

    An entry that was not made by a recipe keeps the card it has.
    """
    entry = load_entry(folder)
    if not entry.recipe:
        return True
    try:
        recipe = read_recipe(entry.recipe, entry.id)
    except RecipeError:
        return False
    write_card(folder, render_card(entry, recipe, repo, pictures or {}))
    return True


def render_card(entry: Entry, recipe: Recipe, repo: str = "", pictures: Mapping[str, str] | None = None) -> str:
    """The card's Markdown with its model-index metadata."""
    tests = {name: b for name, b in entry.evaluation.benchmarks.items() if b.role == "test"}
    parts = [f"---\n{_metadata(entry, recipe, tests)}\n---", f"# {recipe.title}", recipe.summary]
    parts.append("**Not a medical device.** For research, teaching and engineering only; do not diagnose with it.")
    parts.append(_scores(tests, unscored(entry)))
    parts += [f"![{text}]({path})" for path, text in (pictures or {}).items()]
    if recipe.reported:
        parts.append(_published(entry, recipe))
    parts.append(_use(entry, repo))
    parts.append(_training(entry, recipe, entry.config.zoo.split))
    parts += _trust(entry)
    parts.append(_limits(entry, recipe))
    return "\n\n".join(parts) + "\n"


def _metadata(entry: Entry, recipe: Recipe, tests: dict[str, Benchmark]) -> str:
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=name,
            dataset_name=benchmark.title,
            dataset_split="test",
            metric_type=metric,
            metric_name=METRICS[metric].title,
            metric_value=round(benchmark.metrics[metric].value, 4),
        )
        for name, benchmark in tests.items()
        for metric in METRICS
        if metric in benchmark.metrics
    ]
    card = ModelCardData(
        license=LICENCE,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "blood-cells", "hematology", "hemazoo"],
        model_name=entry.id,
        eval_results=results,
    )
    return card.to_yaml().strip()


def _scores(tests: dict[str, Benchmark], missing: Sequence[str]) -> str:
    """A row a benchmark, and those `missing` yet; every further score is in evaluation.json."""
    rows = [f"| benchmark | images | cells | {' | '.join(METRICS[name].title for name in SHOWN)} |"]
    rows.append("|---" * (3 + len(SHOWN)) + "|")
    for name, benchmark in tests.items():
        cells = [_figure(benchmark, metric) for metric in SHOWN]
        rows.append(f"| `{name}` | {benchmark.n_images:,} | {benchmark.n_cells:,} | {' | '.join(cells)} |")
    notes = [f"- `{name}`: {b.title}. {' '.join(b.notes)}" for name, b in tests.items()]
    notes += [f"- `{name}`: {NOT_SCORED}." for name in missing]
    lines = [
        "## Scores",
        "\n".join(rows),
        "In brackets: 95 % intervals, from a bootstrap over source cells. Each benchmark was scored once; every figure "
        "recomputes from `predictions/`.",
        "\n".join(notes),
    ]
    return "\n\n".join(lines)


def _figure(benchmark: Benchmark, metric: str) -> str:
    found = benchmark.metrics.get(metric)
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})" if found else "–"


def _published(entry: Entry, recipe: Recipe) -> str:
    tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test"]
    protocol = "under their protocol, which leaks" if any(b.leaky for b in tests) else "under an honest protocol"
    lines = [
        "## The published system",
        f"Its authors reported: {recipe.reported}. The scores above are {protocol}.",
        *recipe.notes,
    ]
    if recipe.id.endswith((SCRATCH, SCRATCH + PUBLISHED)):
        lines.append(
            "**From random weights.** The published system starts with ImageNet weights, which could not be reached "
            "where this one was trained; nothing is frozen, and its scores say nothing about transfer."
        )
    return "\n\n".join(lines)


def _use(entry: Entry, repo: str) -> str:
    config = entry.config
    if config.zoo.members or config.zoo.head or config.zoo.crop != "none":
        crop = ""
        if config.zoo.crop != "none" and not config.zoo.members:  # members cut for themselves
            crop = f" It sees the cell as `zoo.imaging.localise.locate_cell` cuts it out ({config.zoo.crop})."
        return f"""## Use

```python
import zoo  # from HemaZoo

zoo.classify("cell.png", "{repo or entry.id}")  # label, confidence, probabilities, seconds
```

Labels: {", ".join(entry.labels)}.{crop}"""
    views = f"\nScores are of {config.zoo.views} turned and mirrored views, averaged; this shows it one."
    imports = "import timm\n"
    if is_own(config.architecture):
        imports += f"import zoo.architectures  # from HemaZoo: registers {config.architecture} with timm\n"
    return f"""## Use

```python
{imports}
model = timm.create_model("{f"hf-hub:{repo}" if repo else f"local-dir:{entry.id}"}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
probabilities = model(transform(picture)[None]).softmax(1)
```

Labels, in the order of the outputs: {", ".join(entry.labels)}. Probabilities are calibrated: the temperature fitted on
the validation split is already divided into the last layer.{views if config.zoo.views > 1 else ""}"""


def how_split(recipe: Recipe, split: Split) -> str:
    """What was trained, validated and tested on, and what keeps these apart."""
    sides = ", ".join(f"{len(split.rows[side]):,} {side}" for side in ("train", "val", "test"))
    left = "; ".join(f"{count:,} images: {reason}" for reason, count in split.left_out.items()) or "nothing"
    grouping = {
        "official": "all copies of one source frame on one side",
        "grouped": "all copies of one cell on one side",
        "stratified": "pixel-identical images on one side",
        "random": f"copies of one cell on both sides: {100 * split.leak_share:.0f} % of test images leak",
    }["random" if split.leaky else recipe.data.split]  # a manifest may be leaky whatever the recipe says
    return f"Images: {sides}, split with {grouping}. Left out of training: {left}."


def _training(entry: Entry, recipe: Recipe, split: str) -> str:
    name = recipe.id.removesuffix(PUBLISHED).removesuffix(SCRATCH)
    made = f"`python -m training train {name} --data DIR --out ENTRY"
    made += (" --scratch" if SCRATCH in recipe.id else "") + (" --published" if PUBLISHED in recipe.id else "")
    made += "".join(f" --set {shlex.quote(change)}" for change in _set_otherwise(recipe, name)) + "`"
    return f"""## Data and training

{recipe.data.credit}.

{split}
{_fitting(entry, recipe)} The whole recipe is in `config.json`; {made} makes it again."""


def _set_otherwise(recipe: Recipe, name: str) -> list[str]:
    """What an entry's recipe has otherwise than the one that is called `name` by now; nothing where there is none."""
    if name not in recipe_ids():
        return []
    return differences(recipe, load_recipe(name, published=PUBLISHED in recipe.id, scratch=SCRATCH in recipe.id))


def _fitting(entry: Entry, recipe: Recipe) -> str:
    """How the weights came about."""
    told = entry.config.zoo.training
    if recipe.ensemble:
        shares = ", ".join(
            f"{m} {s:.2f}" for m, s in zip(recipe.ensemble.members, told.get("weights", []), strict=False)
        )
        if recipe.ensemble.same is not None:
            counts = "".join(f"; {label} counts as {name}" for label, name in recipe.ensemble.same.items())
            among = ", ".join(entry.labels)
            return (
                f"Which of {among} is it? Asked of {recipe.ensemble.members[0]}, what else it knows left out{counts}."
            )
        return (
            f"Probabilities of its members are averaged with weights {recipe.ensemble.weights} on validation: {shares}."
        )
    if recipe.head:
        kind = {"knn": "k nearest neighbours", "svm": "a support vector machine", "forest": "a random forest"}
        given = f"the features of `{recipe.head.of}`" if recipe.head.of else "raw pixels"
        return f"{kind[recipe.head.kind].capitalize()} on {given}, options {recipe.head.options}."
    named = {"imagenet": "ImageNet weights", "none": "random weights"}
    start = named.get(recipe.network.weights, f"the weights of {recipe.network.weights}")
    chosen = recipe.schedule.select.removeprefix("val_").replace("_", " ").replace("loss", "log loss")
    steps = "; then ".join(f"{stage.epochs} epochs of {_trained(stage)}" for stage in recipe.all_stages)
    ran = f" {told['epochs']} epochs were run, {told['seconds'] / 60:.0f} minutes on {told['device']}." if told else ""
    fitting = f"`{recipe.network.architecture}` from {start}, {steps}, by {recipe.optimizer.name}"
    if recipe.schedule.runs > 1:
        return (
            f"{fitting}, {recipe.schedule.runs} times with other orders and changes of pictures; of each run the best "
            f"epoch by {chosen} on validation, of their weights the mean.{ran}"
        )
    return f"{fitting}; the best by {chosen} on validation (epoch {told.get('best_epoch', '?')}).{ran}"


def _trained(stage: Stage) -> str:
    if isinstance(stage.train, str):
        return {"all": "everything", "head": "the head"}[stage.train]
    return f"the head and {', '.join(stage.train)}"


def _trust(entry: Entry) -> list[str]:
    """What was measured of its maps and its gate; nothing where nothing was."""
    lines = []
    for method, found in entry.evaluation.explanations.items():
        parts = [
            f"{100 * told.pointing.value:.0f} % point into the cell's box and {100 * told.energy.value:.0f} % of their "
            f"energy lies in it on {told.images} {where} (by chance {100 * told.chance:.0f} %)"
            for name, told in found.localisation.items()
            for where in ["whole smear frames" if is_on_frames(name) else "augmented fields"]
        ]
        if found.road and found.deletion and found.insertion:
            parts.append(
                f"ROAD {found.road.value:+.2f}, deletion {found.deletion.value:.2f}, "
                f"insertion {found.insertion.value:.2f}"
            )
        if found.sanity:
            last = list(found.sanity.values())[-1]
            parts.append(f"rank correlation with the maps of the same network with random weights {last:.2f}")
        lines.append(f"- Maps by {METHODS[method].title if method in METHODS else method}: {'; '.join(parts)}.")
    gate = entry.evaluation.ood
    if gate:
        lines.append(
            f"- Pictures unlike its training cells are marked: {100 * gate.false_alarms.flagged:.1f} % of "
            f"{gate.false_alarms.images:,} test cells at home (false alarms), of what is no blood cell "
            f"{_held(gate.foreign_pictures, 'flagged')}"
            + (f"; of cells elsewhere {_held(gate.other_laboratories, 'flagged')}." if gate.other_laboratories else ".")
        )
        lines.append(
            "- Pictures like no cell of any laboratory it could be compared with are held back: "
            f"{100 * gate.false_alarms.rejected:.1f} % at home, of what is no blood cell "
            f"{_held(gate.foreign_pictures, 'rejected')}"
            + (
                f"; of cells elsewhere {_held(gate.other_laboratories, 'rejected')}."
                if gate.other_laboratories
                else "."
            )
        )
    return ["## Maps, and what it does not know\n\n" + "\n".join(lines)] if lines else []


def _held(kinds: Mapping[str, OodRates], what: Literal["flagged", "rejected"]) -> str:
    return ", ".join(f"{kind} {100 * getattr(told, what):.0f} %" for kind, told in kinds.items())


def _limits(entry: Entry, recipe: Recipe) -> str:
    nothing = (
        "The model always names one of its classes, also for a picture that shows none of them; a `distance` above 1 "
        "marks most of these."
        if entry.evaluation.ood
        else "The model always names one of its classes, also for a picture that shows none of them."
    )
    return f"""## Intended use and limits

For the task "{recipe.task}" in pictures like those of {recipe.data.name}. The scores above are from the laboratory the
training pictures come from. Expect lower ones with another stain, microscope or camera. {nothing}
It has not been examined for use with patients."""
