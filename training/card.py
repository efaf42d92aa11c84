"""What does a model's card say? All of it from the entry's own files, in the Hub's model-card format."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from training.recipe import Recipe
from training.splits import Split
from zoo.entry import Benchmark, Entry
from zoo.metrics import SCORES

LICENCE = "apache-2.0"


def render_card(entry: Entry, recipe: Recipe, split: Split, best_epoch: int) -> str:
    """The card's Markdown with its model-index metadata."""
    tests = {name: b for name, b in entry.evaluation.benchmarks.items() if b.role == "test"}
    parts = [f"---\n{_metadata(entry, recipe, tests)}\n---", f"# {recipe.title}", recipe.summary]
    parts.append("**Not a medical device.** For research, teaching and engineering only; do not diagnose with it.")
    for name, benchmark in tests.items():
        parts.append(_scores(name, benchmark))
    parts.append(_use(entry))
    parts.append(_training(recipe, split, best_epoch))
    parts.append(_limits(recipe))
    return "\n\n".join(parts) + "\n"


def _metadata(entry: Entry, recipe: Recipe, tests: dict[str, Benchmark]) -> str:
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=recipe.data.name,
            dataset_name=benchmark.title,
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=round(benchmark.metrics[metric].value, 4),
        )
        for benchmark in tests.values()
        for metric, title in SCORES.items()
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


def _scores(name: str, benchmark: Benchmark) -> str:
    rows = ["| score | value | 95 % interval over source cells |", "|---|---|---|"]
    for metric, title in SCORES.items():
        if metric in benchmark.metrics:
            found = benchmark.metrics[metric]
            rows.append(f"| {title} | {found.value:.4f} | {found.low:.4f} to {found.high:.4f} |")
    lines = [
        f"## Scores on `{name}`",
        f"{benchmark.n_images:,} images of {benchmark.n_cells:,} independent cells, scored once.",
        "\n".join(rows),
        f"Every figure recomputes from `predictions/{name}.parquet`.",
        *benchmark.notes,
    ]
    return "\n\n".join(lines)


def _use(entry: Entry) -> str:
    config = entry.config
    imports = "import timm\n"
    if config and config.architecture == "cnn60":
        imports += "import zoo.architectures  # from HemaZoo: registers cnn60 with timm\n"
    return f"""## Use

```python
{imports}
model = timm.create_model("local-dir:{entry.id}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
probabilities = model(transform(picture)[None]).softmax(1)
```

Labels, in the order of the outputs: {", ".join(entry.labels)}. Probabilities are calibrated: the temperature fitted on
the validation split is already divided into the last layer."""


def _training(recipe: Recipe, split: Split, best_epoch: int) -> str:
    sides = ", ".join(f"{len(split.rows[side]):,} {side}" for side in ("train", "val", "test"))
    left = "; ".join(f"{count:,} images: {reason}" for reason, count in split.left_out.items()) or "nothing"
    start = "ImageNet weights" if recipe.model.weights != "none" else "random weights"
    chosen = recipe.schedule.select.removeprefix("val_").replace("_", " ").replace("loss", "log loss")
    grouping = {
        "official": "all copies of one source frame on one side",
        "grouped": "all copies of one cell on one side",
        "stratified": "pixel-identical images on one side",
        "random": f"copies of one cell on both sides: {100 * split.leak_share:.0f} % of test images leak",
    }["random" if split.leaky else recipe.data.split]  # a manifest may be leaky whatever the recipe says
    return f"""## Data and training

{recipe.data.credit}.

Images: {sides}, split with {grouping}. Left out of training: {left}.
`{recipe.model.architecture}` from {start}, {recipe.schedule.epochs} epochs of {recipe.optimizer.name},
the best by {chosen} on validation (epoch {best_epoch}). The whole recipe is in `config.json`;
`python -m training train {recipe.id} --data DIR --out ENTRY` makes it again."""


def _limits(recipe: Recipe) -> str:
    return f"""## Intended use and limits

For the task "{recipe.task}" in pictures like those of {recipe.data.name}. The scores above are from the laboratory the
training pictures come from. Expect lower ones with another stain, microscope or camera. The model always names one of
its classes, also for a picture that shows none of them. It has not been examined for use with patients."""
