"""Model cards in the Hub's format, generated from the files of an entry."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import EvalResult, ModelCardData

from training.detection.card import render_detector_card
from training.fit.plan import start_weights, trained_layers
from training.prepare.splits import Split
from training.publish.decisions import acceptance_lines
from training.recipe import (
    PUBLISHED,
    SCRATCH,
    Recipe,
    RecipeError,
    differences,
    load_recipe,
    read_recipe,
    recipe_ids,
)
from training.recipe.ensembles import Ensemble
from training.reproduce.formats import percent
from zoo.architectures import is_own
from zoo.attribution import METHODS
from zoo.benchmarks.eligibility import NOT_SCORED, unscored
from zoo.benchmarks.leaderboard import other_laboratories
from zoo.benchmarks.scoring import METRICS
from zoo.entry import Benchmark, Entry, is_on_frames, load_entry, readable_entries
from zoo.entry.schema import ExplanationQuality, OodQuality
from zoo.entry.write import write_card
from zoo.sources.catalogue import FolderSource

LICENCE = "apache-2.0"
TABLE_METRICS = (  # columns of the table of scores
    "accuracy",
    "balanced_accuracy",
    "accuracy_by_cell",
    "macro_f1",
    "macro_auc",
    "ece",
    "ece_calibrated",
    "corruption_error",
)
DISCLAIMER = "**Not a medical device.** For research, teaching and engineering only; do not use it for diagnosis."
GROUPING = {  # by how a recipe splits its data: what keeps training and test images apart
    "official": "all copies of one source frame on one side",
    "grouped": "all copies of one cell on one side",
    "stratified": "pixel-identical images on one side",
}
HEADS = {"knn": "K nearest neighbours", "svm": "A support vector machine", "forest": "A random forest"}


def renew_card(folder: Path, repo: str = "", pictures: Mapping[str, str] | None = None) -> bool:
    """Write an entry's card again from its files. An entry that was not made by a recipe keeps its card.

    Args:
        folder: The entry's folder.
        repo: Its repository on the Hub, NAMESPACE/NAME, if it has one.
        pictures: Pictures beside the card: path → caption.

    Returns:
        False if the card was left as it is because this version cannot read the entry's recipe.
    """
    entry = load_entry(folder)
    if entry.is_detector:
        write_card(folder, render_detector_card(entry, repo))
        return True
    if not entry.recipe:
        return True
    try:
        recipe = read_recipe(entry.recipe, entry.id)
    except RecipeError:
        return False
    write_card(folder, render_card(entry, recipe, repo, pictures or {}))
    return True


def renew_cards(folder: Path) -> None:
    """Write the cards of all entries in a folder again."""
    for entry in readable_entries(FolderSource(folder, folder.name).entries()):
        renew_card(entry.folder)


def render_card(entry: Entry, recipe: Recipe, repo: str = "", pictures: Mapping[str, str] | None = None) -> str:
    """Render the card as Markdown with its model-index metadata; the arguments are those of `renew_card`."""
    tests = {name: b for name, b in entry.evaluation.benchmarks.items() if b.role == "test"}
    parts = [f"---\n{_metadata(entry, tests)}\n---", f"# {recipe.title}", recipe.summary, DISCLAIMER]
    parts += [_scores(tests, unscored(entry)), *_other_laboratories(entry), _sample(entry)]
    parts += [f"![{caption}]({path})" for path, caption in (pictures or {}).items()]
    if recipe.reported or recipe.notes:
        parts.append(_published_system(recipe, leaky=any(b.leaky for b in tests.values())))
    parts.append(_use(entry, repo))
    parts.append(_training(entry, recipe))
    if entry.evaluation.explanations:
        parts.append(_explanations(entry.evaluation.explanations))
    if entry.evaluation.ood:
        parts.append(_ood(entry.evaluation.ood))
    parts += acceptance_lines(entry)
    parts.append(_limits(entry, recipe.task))
    if entry.config.zoo.hemazoo_version:
        parts.append(f"Made with HemaZoo {entry.config.zoo.hemazoo_version}.")
    return "\n\n".join(parts) + "\n"


def _metadata(entry: Entry, tests: Mapping[str, Benchmark]) -> str:
    """The YAML block that the Hub reads."""
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


def _scores(tests: Mapping[str, Benchmark], missing: Sequence[str]) -> str:
    """The table of scores, one row per benchmark, and the names of those `missing` yet."""
    rows = [f"| benchmark | sample | images | cells | {' | '.join(METRICS[name].title for name in TABLE_METRICS)} |"]
    rows.append("|---" * (4 + len(TABLE_METRICS)) + "|")
    for name, benchmark in tests.items():
        cells = [_value(benchmark, metric) for metric in TABLE_METRICS]
        sample = benchmark.sample or "alike"  # older records were asked as the network was trained
        rows.append(f"| `{name}` | {sample} | {benchmark.n_images:,} | {benchmark.n_cells:,} | {' | '.join(cells)} |")
    notes = [note for name, benchmark in tests.items() if (note := _note(name, benchmark))]
    notes += [f"- `{name}`: {NOT_SCORED}." for name in missing]
    lines = [
        "## Scores",
        "\n".join(rows),
        "In brackets: 95 % confidence intervals from a bootstrap over source cells. Each benchmark was scored once. "
        "Every figure can be recomputed from `predictions/`.",
        "\n".join(notes),
    ]
    return "\n\n".join(lines)


def _note(name: str, benchmark: Benchmark) -> str:
    """Line on a benchmark; empty where there is nothing to say but its name."""
    title = "" if benchmark.title.strip(" .").lower() == name.lower() else f"{benchmark.title.rstrip('.')}."
    said = " ".join(part for part in (title, *benchmark.notes) if part)
    return f"- `{name}`: {said}" if said else ""


def _other_laboratories(entry: Entry) -> list[str]:
    """Paragraph on validation laboratories: mean and worst; none where the model was not scored there."""
    found = other_laboratories(entry)
    if found is None:
        return []
    names = ", ".join(one.laboratory for one in found.laboratories)
    missing = f" Not scored: {', '.join(found.missing)}." if found.missing else ""
    alike = found.mean_alike
    beside = f" Asked with all kinds alike: {percent(alike)} on average." if alike else ""
    return [
        f"Other laboratories ({names}), balanced accuracy: {percent(found.mean)} on average, "
        f"{percent(found.worst.score)} in the worst ({found.worst.laboratory}), each asked with the sample that fits "
        f"it.{beside} They are validation laboratories: not trained on, but looked at when choices were made.{missing}"
    ]


def _sample(entry: Entry) -> str:
    """Paragraph on the sample that the entry is asked with, and on the shares it was trained with."""
    trained = entry.trained_prior
    shares = ", ".join(
        f"{label} {100 * share:.1f} %" for label, share in zip(entry.labels, trained.shares, strict=True)
    )
    return (
        f"Asked with the sample “{entry.default_sample.name}” unless its user says otherwise. Shares in training "
        f"({trained.source}): {shares}."
    )


def _value(benchmark: Benchmark, metric: str) -> str:
    """A metric with its interval, or a dash."""
    found = benchmark.metrics.get(metric)
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})" if found else "–"


def _published_system(recipe: Recipe, leaky: bool) -> str:
    """The scores that the authors of a published system report, how ours compare, and the recipe's notes."""
    protocol = "follow their protocol, which leaks" if leaky else "follow a protocol without leaks"
    lines = ["## The published system" if recipe.system else "## Notes"]
    if recipe.reported:
        lines.append(f"Its authors report: {recipe.reported}. The scores above {protocol}.")
    lines += recipe.notes
    if recipe.id.endswith((SCRATCH, SCRATCH + PUBLISHED)):
        lines.append(
            "**From random weights.** The published system starts from ImageNet weights, which were not available for "
            "this model. No layer is frozen, and the scores say nothing about transfer learning."
        )
    return "\n\n".join(lines)


def _use(entry: Entry, repo: str) -> str:
    """Section on loading the model: with timm where that is enough, else with HemaZoo."""
    config = entry.config
    if config.zoo.members or config.zoo.head or config.zoo.crop != "none":
        crop = ""
        if config.zoo.crop != "none" and not config.zoo.members:  # members crop on their own
            crop = f" The cell is located and cut out first (crop `{config.zoo.crop}`)."
        return f"""## Use

```python
import zoo  # from HemaZoo

zoo.classify("cell.png", "{repo or entry.id}")  # label, confidence, probabilities, seconds
```

Labels: {", ".join(entry.labels)}.{crop}"""
    views = ""
    if config.zoo.views > 1:
        views = f" The scores are of {config.zoo.views} rotated and mirrored views, averaged; this code uses one view."
    imports, first = "import timm\n", ""
    if is_own(config.architecture):
        first = (
            "Plain timm does not know this network: it has layers of HemaZoo, which has to be installed "
            "(`pip install hemazoo`) and imported, as below.\n\n"
        )
        imports += f"import zoo.architectures  # from HemaZoo: registers {config.architecture} with timm\n"
    return f"""## Use

{first}```python
{imports}
model = timm.create_model("{f"hf-hub:{repo}" if repo else f"local-dir:{entry.id}"}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
probabilities = model(transform(picture)[None]).softmax(1)
```

Labels, in the order of the outputs: {", ".join(entry.labels)}. The probabilities are calibrated: the last layer is \
already divided by the temperature fitted on the validation split.{views}"""


def how_split(recipe: Recipe, split: Split) -> str:
    """Sizes of the training, validation and test sets, and what keeps them apart, for the card."""
    sides = ", ".join(f"{len(split.rows[side]):,} {side}" for side in ("train", "val", "test"))
    left_out = "; ".join(f"{count:,} images: {reason}" for reason, count in split.left_out.items()) or "nothing"
    # a manifest may be leaky whatever the recipe says
    if split.leaky or recipe.data.split not in GROUPING:
        grouping = f"copies of one cell on both sides: {100 * split.leak_share:.0f} % of test images leak"
        if recipe.data.split in ("holdout", "first"):
            grouping += ", and the test images are those of validation, as published"
    else:
        grouping = GROUPING[recipe.data.split]
    return f"Images: {sides}, split with {grouping}. Left out of training: {left_out}."


def _training(entry: Entry, recipe: Recipe) -> str:
    """The data, how the weights were trained, and the command that trains the model again."""
    name = recipe.id.removesuffix(PUBLISHED).removesuffix(SCRATCH)
    command = f"python -m training train {name} --data DIR --out ENTRY"
    command += (" --scratch" if SCRATCH in recipe.id else "") + (" --published" if PUBLISHED in recipe.id else "")
    command += "".join(f" --set {shlex.quote(change)}" for change in _changes(recipe, name))
    return f"""## Data and training

{recipe.data.credit}.

{entry.config.zoo.split} {_fitting(entry, recipe)}

The whole recipe is in `config.json`. To train the model again: `{command}`.{_left_out(recipe, name)}"""


def _left_out(recipe: Recipe, name: str) -> str:
    """Sentence on keys that today's recipe has and the entry's had not, which --set cannot take out again."""
    if recipe.model is None or name not in recipe_ids():
        return ""
    today = load_recipe(name, published=PUBLISHED in recipe.id, scratch=SCRATCH in recipe.id).network
    keys = [key for key in ("mean", "std") if getattr(recipe.network, key) is None and getattr(today, key) is not None]
    named = ", ".join(f"`model.{key}`" for key in keys)
    return (
        f" Leave out {named} of a copy of the recipe: this model had the backbone's own normalisation." if keys else ""
    )


def _changes(recipe: Recipe, name: str) -> list[str]:
    """Settings in which an entry's recipe differs from the present recipe `name`; none if that no longer exists."""
    if name not in recipe_ids():
        return []
    return differences(recipe, load_recipe(name, published=PUBLISHED in recipe.id, scratch=SCRATCH in recipe.id))


def _fitting(entry: Entry, recipe: Recipe) -> str:
    """Section on how the model was made."""
    if recipe.ensemble:
        return _ensemble(entry, recipe.ensemble)
    if recipe.head:
        own = (
            "raw pixels"
            if recipe.network.architecture == "pixels"
            else f"what `{recipe.network.architecture}` computes"
        )
        given = f"the features of `{recipe.head.of}`" if recipe.head.of else own
        return f"{HEADS[recipe.head.kind]} on {given}, options {recipe.head.options}."
    facts = entry.config.zoo.training
    start = start_weights(recipe)
    stages = "; then ".join(f"{stage.epochs} epochs of {trained_layers(stage)}" for stage in recipe.all_stages)
    select = recipe.schedule.select
    metric = select.removeprefix("val_").replace("_", " ").replace("loss", "log loss")
    if recipe.schedule.runs > 1:
        kept = (
            f"There were {recipe.schedule.runs} runs with different random orders and augmentations; the weights of "
            f"each run's best epoch (by {metric} on validation) are averaged."
        )
    elif select == "last":
        kept = "The last epoch was kept."
    else:
        kept = f"The best epoch by {metric} on validation was kept (epoch {facts.get('best_epoch', '?')})."
    time = ""
    if facts:
        time = f" It took {facts['epochs']} epochs, {facts['seconds'] / 60:.0f} minutes on {facts['device']}."
    return (
        f"`{recipe.network.architecture}` was trained from {start}: {stages}, with the optimiser "
        f"{recipe.optimizer.name}. {kept}{time}"
    )


def _ensemble(entry: Entry, ensemble: Ensemble) -> str:
    """Sentence on how an ensemble combines its members."""
    if ensemble.same is not None:
        merged = "".join(f"; {label} counts as {name}" for label, name in ensemble.same.items())
        return (
            f"It chooses among {', '.join(entry.labels)} by the probabilities of {ensemble.members[0]}. Other classes "
            f"of that model are dropped and the rest is scaled to 1{merged}."
        )
    weights = entry.config.zoo.training.get("weights", [])
    named = ", ".join(f"{member} {weight:.2f}" for member, weight in zip(ensemble.members, weights, strict=False))
    known = {"fitted": "weights fitted on validation", "equal": "equal weights"}
    how = known[ensemble.weights] if isinstance(ensemble.weights, str) else "weights that the recipe names"
    mean = "averaged" if ensemble.mean == "arithmetic" else "combined by their geometric mean, scaled to 1"
    return f"The probabilities of its members are {mean}, with {how}: {named}."


def _explanations(qualities: Mapping[str, ExplanationQuality]) -> str:
    """Scores of the maps, one line per attribution method."""
    lines = ["## Explanations", ""]
    for method, quality in qualities.items():
        parts = []
        for name, scores in quality.localisation.items():
            where = "whole smear frames" if is_on_frames(name) else "augmented fields"
            parts.append(
                f"{100 * scores.pointing.value:.0f} % of maps point into the cell's box and "
                f"{100 * scores.energy.value:.0f} % of their energy lies in it, on {scores.images} {where} "
                f"({100 * scores.chance:.0f} % by chance)"
            )
        if quality.road and quality.deletion and quality.insertion:
            parts.append(
                f"ROAD {quality.road.value:+.2f}, deletion {quality.deletion.value:.2f}, "
                f"insertion {quality.insertion.value:.2f}"
            )
        if quality.sanity:
            last = list(quality.sanity.values())[-1]
            parts.append(f"rank correlation with the maps of the same network with random weights {last:.2f}")
        lines.append(f"- {METHODS[method].title if method in METHODS else method}: {'; '.join(parts)}.")
    return "\n".join(lines)


def _ood(quality: OodQuality) -> str:
    """Table of the pictures flagged and rejected, at home, without a blood cell, and from other laboratories."""
    home = quality.false_alarms
    flagged = f"{100 * home.flagged:.1f} % of {home.images:,} test cells of its own laboratory (false alarms)"
    rejected = f"{100 * home.rejected:.1f} % of the test cells of its own laboratory"
    lines = [
        f"- Flagged as unusual: {flagged}{_shares_by_kind(quality, 'flagged')}.",
        f"- Rejected as unlike any blood cell: {rejected}{_shares_by_kind(quality, 'rejected')}.",
    ]
    return "## Out-of-distribution pictures\n\n" + "\n".join(lines)


def _shares_by_kind(quality: OodQuality, which: Literal["flagged", "rejected"]) -> str:
    """Shares that are flagged or rejected, by kind of foreign picture and by other laboratory."""
    text = ""
    kinds = {"pictures without a blood cell": quality.foreign_pictures}
    kinds["cells of other laboratories"] = quality.other_laboratories
    for title, rates in kinds.items():
        shares = ", ".join(f"{name} {100 * getattr(rate, which):.0f} %" for name, rate in rates.items())
        text += f"; {title}: {shares}" if shares else ""
    return text


def _limits(entry: Entry, task: str) -> str:
    """Section on intended use and limits."""
    flagged = " A `distance` above 1 flags most such pictures." if entry.evaluation.ood else ""
    data = " and ".join(entry.data_sets) or f"its training data ({task})"
    return f"""## Intended use and limits

Made for the task "{task}" on pictures like those of {data}. Scores on its own test split are from \
the laboratory of its training pictures. Expect lower ones with another stain, microscope or camera. The model always \
answers with one of its classes, also for a picture that shows none of them.{flagged} It has not been examined for \
use with patients."""
