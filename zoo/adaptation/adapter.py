"""How does a model learn a new laboratory from a few of its cells? By a new last layer and its own statistics.

The network's weights stay: from five cells a class nothing more can be learnt. Of labelled cells comes a last layer
that is held near the old one (Li, Grandvalet & Davoine 2018, arXiv:1802.01483), of cells with or without labels the
mean and variance that batch norm expects (Schneider et al. 2020, arXiv:2006.16971), and where no cell has a label, the
surest answers stand in for labels (Lee 2013). What of it is used is chosen by cross-validation inside of the training
folds; the outer folds tell what it gained, on cells that had no part in it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.model_selection import StratifiedKFold
from torch import nn

from zoo.entry import WEIGHTS, Entry, EntryError, load_entry
from zoo.entry.write import (
    SCHEMA_VERSION,
    ScoredBenchmark,
    create_entry,
    update_benchmark,
    write_card,
    write_config,
    write_evaluation,
    write_weights,
)
from zoo.imaging.preprocess import NetworkInput, Preprocessor, augmented_views, preprocessor
from zoo.scores import metrics
from zoo.scores.bootstrap import Interval
from zoo.scores.predictions import table_confusion
from zoo.scores.temperature import fit_temperature
from zoo.serving.loading import load_model
from zoo.serving.ood import read_ood_detector, widen, write_ood_detector

LEAST = 5  # labelled cells of a class
MOST = 400  # pictures times views that are looked at
VIEWS = 4
FOLDS = 5
INNER = 3
STRENGTHS = (1.0, 0.1, 0.01, 0.001)  # how much the new last layer is held near the old one
GUESSED = 0.1  # the same where the labels are the model's own answers
SUREST = 0.5  # share of each class's own answers that stand in for labels
OLD_CELLS = 64  # that the statistics of training are worth
MOST_SHARE = 0.5  # of new statistics: more made models worse in laboratories left out of their training
BATCH = 32
STEPS = 60  # of the optimiser
Say = Callable[[float, str], None]  # share done, what is being done


@dataclass(frozen=True)
class Choice:
    """What is changed: batch norm's statistics, and how strongly the last layer is held (None: it is the old one)."""

    statistics: bool
    strength: float | None

    def __str__(self) -> str:
        parts = ["the statistics of these pictures"] if self.statistics else []
        parts += [] if self.strength is None else [f"a new last layer (held by {self.strength:g})"]
        return " and ".join(parts) or "nothing: the model as it is does best"


@dataclass(frozen=True)
class Adapted:
    """What came of it: the entry, what was chosen, balanced accuracy before and after, and what it gained.

    Scores are cross-validated: each cell was judged by what had been made without it. None without labels: then `agree`
    tells which share of answers stayed the same.
    """

    entry: Entry
    choice: Choice
    pictures: int
    labelled: int
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    agree: float


class _Source:
    """The model that is adapted: its network, last layer and preparation of pictures."""

    def __init__(self, entry: Entry) -> None:
        config = entry.config
        if not entry.usable:
            raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
        if config.zoo.members:
            raise EntryError(f"{entry.id} is an ensemble: adapt one of its members, {', '.join(config.zoo.members)}.")
        self.model = load_model(entry)
        last = self.model.get_classifier() if hasattr(self.model, "get_classifier") else None
        if config.zoo.head or not isinstance(last, nn.Linear):
            raise EntryError(f"{entry.id} does not decide by a linear last layer. Choose a network.")
        self.prepare: Preprocessor = preprocessor(config.pretrained_cfg.model_dump(), config.zoo.crop)
        self.weight = last.weight.double() / config.zoo.temperature
        self.bias = last.bias.double() / config.zoo.temperature
        self.entry = entry

    @property
    def has_statistics(self) -> bool:
        """Whether the network has batch norm whose statistics can be changed."""
        return any(_is_norm(module) for module in self.model.modules())

    def look(self, pixels: Sequence[torch.Tensor], views: int, model: nn.Module | None = None) -> torch.Tensor:
        """Vectors (n, views, d) float64 before the last layer, of pictures as `prepare.pixels` gives them."""
        found = []
        network = model or self.model
        with torch.inference_mode():
            for batch in _batches(pixels, views):
                features = network.forward_features(self.prepare.normalise(batch))
                found.append(network.forward_head(features, pre_logits=True).double())
        return torch.cat(found).reshape(len(pixels), views, -1).clone()

    def with_statistics(self, pixels: Sequence[torch.Tensor], views: int) -> nn.Module:
        """A copy of the network whose batch norm expects pictures like these, as far as they are many."""
        model = copy.deepcopy(self.model)
        norms = [module for module in model.modules() if _is_norm(module)]
        old = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        with torch.inference_mode():
            for batch in _batches(pixels, views):
                if len(batch) > 1:
                    model.forward_features(self.prepare.normalise(batch))
        share = min(MOST_SHARE, len(pixels) / (len(pixels) + OLD_CELLS))
        for norm, (mean, variance) in zip(norms, old, strict=True):
            norm.eval()
            norm.running_mean.mul_(share).add_((1 - share) * mean)
            norm.running_var.mul_(share).add_((1 - share) * variance)
        return model


def adapt(
    entry: Entry,
    images: Sequence[Image.Image],
    labels: Sequence[str | None],
    out: Path,
    name: str,
    files: Sequence[str] | None = None,
    say: Say = lambda share, what: None,
    only_statistics: bool = False,
) -> Adapted:
    """Make the entry `out` of an entry and pictures of a laboratory called `name`, labelled or not.

    Labels are those of the entry, None where unknown. `say` is told how far it is; what it raises stops the work, with
    nothing left behind. `only_statistics` asks for no more than these pictures' statistics, whatever their labels.
    Raises EntryError if the model cannot be adapted, or there are too few pictures.
    """
    source = _Source(entry)
    if only_statistics:
        labels = [None] * len(images)
        if not source.has_statistics:
            raise EntryError(f"{entry.id} has no batch norm: there are no statistics to change.")
    known = [label for label in labels if label is not None]
    _check(entry, known, len(images))
    rows = _chosen(labels)
    views = max(1, min(VIEWS, MOST // len(rows)))
    say(0.0, "reading the pictures")
    seen = [source.prepare.input(images[row]) for row in rows]
    numbers = np.array([-1 if labels[row] is None else entry.labels.index(str(labels[row])) for row in rows])
    named = [(files[row] if files else f"{row}") for row in rows]
    work = _Work(source, seen, numbers, views, say)
    if known:
        choice, before, after = work.crossvalidate()
    else:
        choice, before, after = Choice(source.has_statistics, None if only_statistics else GUESSED), None, None
    model, weight, bias, agree = work.finish(choice)
    if after is not None:
        temperature = fit_temperature(numbers[numbers >= 0], after)
        weight, bias = weight / temperature, bias / temperature
        after = after / temperature
    say(0.97, "writing the entry")
    tables = None
    if before is not None and after is not None:
        kept = [named[i] for i in np.flatnonzero(numbers >= 0)]
        truth = numbers[numbers >= 0]
        tables = (_table(entry, kept, truth, before), _table(entry, kept, truth, after))
    facts = {
        "from": entry.id,
        "laboratory": name,
        "pictures": len(rows),
        "labelled": dict(Counter(known)),
        "changed": str(choice),
    }
    adapted = _write(out, source, model, weight, bias, choice, work, facts, tables)
    say(1.0, "done")
    scores = [metrics.evaluate(table, entry.labels)["balanced_accuracy"] for table in tables or ()] or [None, None]
    gain = _gain(*tables, entry.labels) if tables else None
    return Adapted(adapted, choice, len(rows), len(known), scores[0], scores[1], gain, agree)


def can_adapt(entry: Entry) -> bool:
    """Whether an entry is a network of its own; whether its last layer is linear is known when it is loaded."""
    return entry.usable and not (entry.config.zoo.members or entry.config.zoo.head)


def _check(entry: Entry, known: Sequence[str], count: int) -> None:
    strange = sorted(set(known) - set(entry.labels))
    if strange:
        raise EntryError(f"{entry.id} has no class {strange[0]!r}. Its classes: {', '.join(entry.labels)}.")
    counts = Counter(known)
    few = [f"{label} ({number})" for label, number in counts.items() if number < LEAST]
    if few:
        raise EntryError(f"There are too few cells of {', '.join(few)}: give {LEAST} of a class, or none of it.")
    if len(counts) == 1:
        raise EntryError(
            f"All labelled cells are of one class, {known[0]}. Give {LEAST} cells of two classes at least."
        )
    if not known and count < 2 * LEAST:
        raise EntryError(f"There are {count} pictures without labels; {2 * LEAST} are needed at least.")


def _chosen(labels: Sequence[str | None]) -> list[int]:
    """Rows that are looked at: all, or of each label as many as of any other, drawn evenly."""
    if len(labels) <= MOST:
        return list(range(len(labels)))
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    turns: Counter = Counter()
    ranked = []
    for row in order:
        turns[labels[row]] += 1
        ranked.append((turns[labels[row]], int(row)))
    return sorted(row for _, row in sorted(ranked)[:MOST])


class _Work:
    """The pictures of one laboratory, seen by one model."""

    def __init__(
        self, source: _Source, seen: Sequence[NetworkInput], numbers: np.ndarray, views: int, say: Say
    ) -> None:
        self.source, self.numbers, self.views, self.say = source, numbers, views, say
        self.pixels, self.confidence = [one.pixels for one in seen], [one.confidence for one in seen]
        self.say(0.02, "looking at the pictures")
        self.plain = source.look(self.pixels, views)
        self.norms = source.has_statistics

    def vectors(self, rows: np.ndarray) -> torch.Tensor:
        """Of all pictures, by a network with the statistics of these rows."""
        model = self.source.with_statistics([self.pixels[row] for row in rows], self.views)
        return self.source.look(self.pixels, self.views, model)

    def crossvalidate(self) -> tuple[Choice, np.ndarray, np.ndarray]:
        """What is best for all pictures, and logits (n, classes) of the labelled ones: before, and out of fold."""
        labelled = np.flatnonzero(self.numbers >= 0)
        loose = np.flatnonzero(self.numbers < 0)
        truth = self.numbers[labelled]
        classes = len(self.source.bias)
        folds = list(_folds(truth, FOLDS))
        after = np.zeros((len(labelled), classes))
        for number, (train, test) in enumerate(folds):
            self.say(0.1 + 0.7 * number / len(folds), f"cross-validation {number + 1} of {len(folds)}")
            # pictures that are judged have no part in anything, not even in the statistics
            seen = self.vectors(np.concatenate([labelled[train], loose])) if self.norms else None
            choice = self.choose(labelled[train], seen)
            vectors = seen if choice.statistics and seen is not None else self.plain
            weight, bias = self.layer(vectors, labelled[train], choice)
            after[test] = _logits(vectors[labelled[test]], weight, bias)
        before = _logits(self.plain[labelled], self.source.weight, self.source.bias)
        self.say(0.82, "choosing for all pictures")
        seen = self.vectors(np.arange(len(self.pixels))) if self.norms else None
        return self.choose(labelled, seen), before, after

    def choose(self, rows: np.ndarray, seen: torch.Tensor | None) -> Choice:
        """The choice of the least balanced log loss in folds of these rows; the old model where nothing beats it."""
        truth = self.numbers[rows]
        best, least = Choice(False, None), np.inf
        for statistics, vectors in ((False, self.plain), (True, seen)):
            if vectors is None:
                continue
            for strength in (None, *STRENGTHS):
                choice = Choice(statistics, strength)
                logits = np.zeros((len(rows), len(self.source.bias)))
                for train, test in _folds(truth, INNER):
                    weight, bias = self.layer(vectors, rows[train], choice)
                    logits[test] = _logits(vectors[rows[test]], weight, bias)
                loss = _balanced_loss(truth, logits)
                if loss < least - 1e-6:
                    best, least = choice, loss
        return best

    def layer(self, vectors: torch.Tensor, rows: np.ndarray, choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        """The last layer, fitted on these rows by their labels as the choice says."""
        if choice.strength is None:
            return self.source.weight, self.source.bias
        return fit_layer(vectors[rows], self.numbers[rows], self.source.weight, self.source.bias, choice.strength)

    def finish(self, choice: Choice) -> tuple[nn.Module, torch.Tensor, torch.Tensor, float]:
        """Network and last layer of all pictures, and the share of answers that stayed as they were."""
        rows = np.arange(len(self.pixels))
        self.say(0.88, "fitting on all pictures")
        model = self.source.model
        vectors = self.plain
        if choice.statistics:
            model = self.source.with_statistics(self.pixels, self.views)
            vectors = self.source.look(self.pixels, self.views, model)
        labelled = np.flatnonzero(self.numbers >= 0)
        if len(labelled) or choice.strength is None:
            weight, bias = self.layer(vectors, labelled, choice)
        else:
            weight, bias = _by_own_answers(vectors, self.source)
        was = _logits(self.plain[rows], self.source.weight, self.source.bias).argmax(1)
        return model, weight, bias, float((_logits(vectors, weight, bias).argmax(1) == was).mean())


def fit_layer(
    vectors: torch.Tensor, numbers: np.ndarray, weight: torch.Tensor, bias: torch.Tensor, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial regression of vectors (n, views, d) on class numbers (n,), classes weighed equally.

    It begins at `weight` (classes, d) and `bias`; `strength` times the squared distance from there is added to the
    loss, in units of the vectors' mean square length.
    """
    views = vectors.shape[1]
    inputs = vectors.reshape(-1, vectors.shape[2]).clone()
    targets = torch.from_numpy(np.repeat(numbers, views).astype(np.int64))
    counts = torch.bincount(targets, minlength=len(bias)).double()
    shares = 1 / (counts[targets] * (counts > 0).sum())
    length = inputs.square().sum(1).mean()
    change = torch.zeros_like(weight, requires_grad=True)
    shift = torch.zeros_like(bias, requires_grad=True)
    optimiser = torch.optim.LBFGS([change, shift], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ (weight + change).T + bias + shift
        found = (shares * nn.functional.cross_entropy(logits, targets, reduction="none")).sum()
        total = found + strength * (length * change.square().sum() + shift.square().sum()) / len(bias)
        total.backward()
        return total

    optimiser.step(loss)
    return (weight + change).detach(), (bias + shift).detach()


def _by_own_answers(vectors: torch.Tensor, source: _Source) -> tuple[torch.Tensor, torch.Tensor]:
    """A last layer fitted on the surest of the model's own answers, as many of each class as of its answers."""
    weight, bias = source.weight, source.bias
    logits = torch.from_numpy(_logits(vectors, weight, bias))
    sure, answers = logits.softmax(1).max(1)
    rows = []
    for number in range(len(bias)):
        mine = torch.nonzero(answers == number)[:, 0]
        rows += mine[sure[mine].argsort(descending=True)][: max(1, round(SUREST * len(mine)))].tolist()
    if len(set(answers[rows].tolist())) < 2:
        return weight, bias
    return fit_layer(vectors[rows], answers[rows].numpy(), weight, bias, GUESSED)


def _logits(vectors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Log probabilities (n, classes) of vectors (n, views, d), averaged over views."""
    found = (vectors @ weight.T + bias).log_softmax(2)
    return (found.logsumexp(1) - np.log(found.shape[1])).numpy()


def _balanced_loss(truth: np.ndarray, logits: np.ndarray) -> float:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    losses = metrics.log_losses(truth, shares)
    return float(np.mean([losses[truth == number].mean() for number in np.unique(truth)]))


def _folds(truth: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    count = max(2, min(count, int(np.bincount(truth)[np.unique(truth)].min())))
    yield from StratifiedKFold(count, shuffle=True, random_state=0).split(truth, truth)


def _batches(pixels: Sequence[torch.Tensor], views: int) -> Iterator[torch.Tensor]:
    """uint8 (B, 3, H, W): each picture's views after another."""
    step = max(1, BATCH // views)
    for start in range(0, len(pixels), step):
        yield torch.cat([augmented_views(one, views) for one in pixels[start : start + step]])


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def _table(entry: Entry, files: Sequence[str], truth: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    table = pd.DataFrame(shares.astype(np.float16).astype(np.float32), columns=entry.labels)
    table.insert(0, "file", list(files))
    table.insert(1, "cell", list(files))
    table.insert(2, "label", [entry.labels[number] for number in truth])
    return table


def _gain(before: pd.DataFrame, after: pd.DataFrame, labels: Sequence[str]) -> Interval:
    """Difference of balanced accuracy, after less before, with its paired interval over cells."""
    drawn = []
    values = []
    for table in (before, after):
        found = metrics.estimate(table, labels, "balanced_accuracy")
        values.append(found.value)
        drawn.append(found.draws)
    low, high = np.nanpercentile(drawn[1] - drawn[0], [2.5, 97.5])
    return Interval(values[1] - values[0], float(low), float(high))


def _write(
    out: Path,
    source: _Source,
    model: nn.Module,
    weight: torch.Tensor,
    bias: torch.Tensor,
    choice: Choice,
    work: _Work,
    facts: dict[str, Any],
    tables: tuple[pd.DataFrame, pd.DataFrame] | None,
) -> Entry:
    """The entry's folder, whole or not at all."""
    entry = source.entry
    tensors = load_file(str(entry.folder / WEIGHTS))
    state = model.state_dict()
    last = next(name for name, module in model.named_modules() if module is model.get_classifier())
    changed = {f"{last}.weight": weight, f"{last}.bias": bias}
    if choice.statistics:
        changed |= {key: state[key] for key in tensors if key.endswith(("running_mean", "running_var"))}
    for key, value in changed.items():
        tensors[key] = value.to(tensors[key].dtype).contiguous()
    config = entry.config.as_written()
    ours = config["zoo"]
    name = facts["laboratory"]
    ours |= {
        "title": f"{ours['title']}, adapted to {name}"[:200],
        "summary": f"{ours['summary']} Adapted to {name} by {facts['pictures']} of its pictures."[:1000],
        "temperature": 1.0,
        "fitted_temperature": 1.0 if tables else None,
        "adapted": facts,
    }
    gate = read_ood_detector(entry.folder, len(entry.labels))
    with create_entry(out) as place:
        write_weights(place, tensors)
        write_config(place, config)
        # scores of the old model do not hold for the new one
        write_evaluation(place, {"schema_version": SCHEMA_VERSION, "benchmarks": {}})
        if tables is not None:
            scored = ScoredBenchmark(_record(name, tables[1], entry.labels), tables[1])
            update_benchmark(place, f"{name}-crossval", scored)
        if gate is not None and not choice.statistics:
            write_ood_detector(place, widen(gate, work.plain[:, 0].float(), work.confidence))
        write_card(place, _card(entry, facts))
    return load_entry(out)


def _record(name: str, table: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "title": f"{name}, cross-validated",
        "role": "test",
        "labels": list(labels),
        "confusion": table_confusion(table, labels).tolist(),
        "metrics": metrics.as_dict(metrics.evaluate(table, labels)),
        "n_images": len(table),
        "n_cells": int(table["cell"].nunique()),
        "notes": ["Each cell was judged by a model that was adapted without it."],
    }


def _card(entry: Entry, facts: dict[str, Any]) -> str:
    labelled = ", ".join(f"{count} {label}" for label, count in facts["labelled"].items()) or "none with a label"
    return (
        f"---\nlibrary_name: timm\nlicense: other\ntags:\n- hemazoo\n---\n\n# {entry.title}, adapted\n\n"
        f"{entry.id}, adapted to {facts['laboratory']} by {facts['pictures']} pictures ({labelled}). Changed: "
        f"{facts['changed']}.\n\nScores are cross-validated on these pictures alone. Not a medical device.\n"
    )
