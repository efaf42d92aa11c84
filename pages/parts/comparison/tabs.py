"""Tabs of the compare page, and its leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from pages.parts import layout, plots
from pages.parts.comparison import scored
from pages.parts.comparison.matrices import MAX_PICTURES, class_names, pick_scored, show_pictures
from pages.parts.comparison.scored import ScoredModel
from pages.parts.tables import downloads
from pages.parts.wording import counted, percent, plain, scores_table
from zoo.benchmarks import leaderboard, robustness
from zoo.benchmarks.comparison import Stage, calibration_data, corrupted_benchmark
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.entry import Entry, EntryError, read_history
from zoo.figures import comparison as figures
from zoo.figures.history import training_curves
from zoo.lazy import lazy_module
from zoo.scores import significance

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

CLASS_SCORES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auc": "AUC",
    "average_precision": "average precision",
}
AREAS = ("auc", "average_precision")  # areas under curves, which take longest
CALIBRATION_SCORES = ("ece", "ece_calibrated", "log_loss", "brier", "selective_accuracy")
STAGES: dict[str, Stage] = {"as shown in the app": "stored", "before scaling": "before", "after scaling": "after"}
HISTORY_COLUMNS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "learning_rate": "learning rate",
}
CURVES: tuple[Literal["roc", "pr"], ...] = ("roc", "pr")
ROW_PIXELS, MAX_TABLE_PIXELS = 34, 640  # of the leaderboard


def show_leaderboard(entries: Sequence[Entry]) -> None:
    """Show one row a model: numbers to sort by, each with its interval drawn beside it."""
    table, first = leaderboard.table(entries), scored.leaders(entries)
    columns: dict[str, ColumnConfig | None] = {
        "model": st.column_config.TextColumn("model", pinned=not layout.on_telephone())
    }
    shown = table[["model"]].copy()
    for name, column in leaderboard.COLUMNS.items():
        if not table[name].notna().any():
            continue
        shown[name], shown[f"{name} bar"] = 100 * table[name], _interval_bars(table, name, first[name])
        columns[name] = st.column_config.NumberColumn(column.title, help=column.help, format="%.1f %%", width=110)
        columns[f"{name} bar"] = st.column_config.ImageColumn("95 % CI", help="Over source cells.", width=130)
    shown["megabytes"], shown["images_per_second"] = table["megabytes"], table["images_per_second"]
    columns["megabytes"] = st.column_config.NumberColumn("MB", format="%.1f", help="Size of the weights.")
    columns["images_per_second"] = st.column_config.NumberColumn(
        "images/s", format="%.0f", help="Measured when it was evaluated, on the device that its evaluation names."
    )
    st.dataframe(
        shown.dropna(axis="columns", how="all"),
        hide_index=True,
        column_config=columns,
        row_height=ROW_PIXELS,
        height=min(ROW_PIXELS * (len(shown) + 1) + 4, MAX_TABLE_PIXELS),
        placeholder=NOT_SCORED,
    )
    titles = table.set_index("id")["model"]
    best = [
        f"**{plain(titles[identity])}** {leaderboard.COLUMNS[name].title}"
        for name, identity in first.items()
        if identity is not None and identity in titles
    ]
    st.caption(
        (f"Significantly best (red): {'; '.join(best)}." if best else "No model is significantly best.")
        + " Balanced accuracy, but for the calibration error and the maps. Bars: 95 % CI.",
        help="Click a column's name to sort. Best: a paired bootstrap over source cells, adjusted after Holm, finds a "
        "lead over every other model on the same pictures.",
    )
    if table["leaky"].any():
        leaky = ", ".join(table.loc[table["leaky"], "model"])
        st.warning(f"**Leaky split** in the home laboratory, only good for reproducing others: {plain(leaky)}.")
    downloads(table, "leaderboard", leaderboard.in_words(table, first))


def _interval_bars(table: pd.DataFrame, name: str, best: str | None) -> list[str]:
    start, end = figures.leaderboard_range(table, name)
    columns = (table[name], table[f"{name}_low"], table[f"{name}_high"], table["id"])
    return [
        figures.interval_bar(value, low, high, start, end, identity == best)
        for value, low, high, identity in zip(*columns, strict=True)
    ]


def show_classes(models: Sequence[ScoredModel]) -> None:
    """Show precision, recall, F1, AUC and average precision of each class."""
    chosen = st.segmented_control(
        "Score",
        list(CLASS_SCORES),
        default="f1",
        required=True,
        format_func=lambda name: CLASS_SCORES[name],
        key="of class",
    )
    names_of, names = class_names(models), [name for name in CLASS_SCORES if chosen in AREAS or name not in AREAS]
    written = {model.title: _written(model.classes(chosen in AREAS), names_of) for model in models}
    plots.downloadable(figures.per_class(written, chosen), "class by class")
    table = pd.concat([classes.assign(model=title) for title, classes in written.items()])
    order = ["model", "label", "images", "cells", *names]
    shown = table[order].assign(**{name: 100 * table[name] for name in names})
    config: dict[str, ColumnConfig | None] = {
        name: st.column_config.NumberColumn(CLASS_SCORES[name], format="%.1f %%") for name in names
    }
    st.dataframe(shown, hide_index=True, column_config=config | {"label": st.column_config.TextColumn("class")})
    limits = [f"{name}_{end}" for name in names for end in ("low", "high")]
    downloads(table[order + limits], "class-scores")


def _written(classes: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return classes.assign(label=[names.get(label, label) for label in classes["label"]])


def show_operating_curves(models: Sequence[ScoredModel], labels: list[str]) -> None:
    """Show ROC and precision–recall curves of one class against the rest."""
    written = class_names(models)
    label = st.selectbox(
        "Class against the rest", labels, key="class", format_func=lambda name: written.get(name, name)
    )
    tables = {model.title: model.table for model in models}
    for column, kind in zip(st.columns(2, gap="large"), CURVES, strict=True):
        with column:
            plots.downloadable(figures.operating_curves(tables, label, kind), f"{kind} {label}")


def show_calibration(models: Sequence[ScoredModel]) -> None:
    """Show reliability before or after temperature scaling, and accuracy on the most confident images."""
    stage = st.segmented_control("Confidence", list(STAGES), default=next(iter(STAGES)), required=True, key="scaling")
    answers = {
        model.title: calibration_data(
            model.entry, model.table, model.benchmark.labels, STAGES[stage], model.benchmark.sample
        )
        for model in models
    }
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Reliability**", help="On the line, confidence equals accuracy.")
        plots.downloadable(figures.reliability(answers), "reliability")
    with right:
        st.markdown("**Accuracy on the most confident images**")
        plots.downloadable(figures.risk_coverage(answers), "risk and coverage")
    table = scores_table({model.title: model.scores for model in models}, CALIBRATION_SCORES)
    st.dataframe(table, hide_index=True)
    downloads(table, "calibration")


def show_corruption(entries: Sequence[Entry], name: str, titles: Mapping[str, str]) -> None:
    """Show the error by kind and severity of corruption, for the models that were scored on corrupted pictures."""
    benchmark = corrupted_benchmark(name)
    models = [entry for entry in entries if benchmark in entry.evaluation.benchmarks]
    if not models:
        st.info(
            f"None of these models is scored on {benchmark}. Run "
            f"`python -m training evaluate ENTRY --benchmark {benchmark} --data ROOT`."
        )
        return
    errors = {}
    for entry in models:
        try:
            found = scored.corruption_errors(entry, benchmark)
        except (EntryError, OSError) as error:
            st.error(f"{titles[entry.id]} is left out: {error}")
            continue
        if found is not None:
            errors[titles[entry.id]] = found
    plots.downloadable(figures.corruption(errors), "corruption")
    metrics = {titles[entry.id]: entry.evaluation.benchmarks[benchmark].metrics for entry in models}
    table = scores_table(metrics, robustness.METRIC_NAMES)
    st.dataframe(table, hide_index=True)
    st.caption(
        "Relative to AlexNet: 1 is as bad as AlexNet, 0 is perfect.",
        help="AlexNet on the blood pictures of MedMNIST-C (arXiv:2406.17536).",
    )
    downloads(table, "corruption-scores")
    if errors:
        downloads(pd.concat([e.assign(model=title) for title, e in errors.items()]), "corruption-errors")


def show_agreement(models: Sequence[ScoredModel], labels: list[str]) -> None:
    """Show tests of every two models, and the images that one classifies correctly and another does not."""
    if len(models) < 2:
        st.info("Choose two models above to see where they disagree.")
        return
    try:
        pairs = scored.pairs(models, labels)
    except ValueError as error:
        st.info(plain(error))
        return
    shares = ("difference", "low", "high")
    config: dict[str, ColumnConfig | None] = {
        "difference": st.column_config.NumberColumn("difference, points", format="%+.1f"),
        "low": st.column_config.NumberColumn("95 % CI from", format="%+.1f"),
        "high": st.column_config.NumberColumn("to", format="%+.1f"),
        "first_only": st.column_config.NumberColumn("only first right"),
        "second_only": st.column_config.NumberColumn("only second right"),
        "p": st.column_config.NumberColumn("p", format="%.2g"),
        "p_holm": st.column_config.NumberColumn("p, adjusted", format="%.2g"),
    }
    shown = pairs.assign(**{name: 100 * pairs[name] for name in shares})
    st.dataframe(shown, hide_index=True, column_config=config, key="pairs table")
    st.caption(
        "Difference in accuracy with its paired 95 % CI, and significance.",
        help="Only first right, only second right: source cells that only one of the two classifies correctly. p: "
        "exact McNemar test; adjusted after Holm for the number of pairs.",
    )
    downloads(pairs, "pairs")
    left, right = st.columns(2)
    with left:
        first = pick_scored("Correct", models, 0, "right")
    with right:
        second = pick_scored("while wrong", models, 1, "wrong")
    rows = significance.only_first_correct(first.table, second.table, labels)
    st.markdown(
        f"**{counted(len(rows), 'images')}** that {plain(first.title)} gets right and {plain(second.title)} does not"
    )
    show_pictures(rows.head(MAX_PICTURES), second, "agreement")
    if len(rows):
        downloads(rows, f"{first.entry.id}-right-{second.entry.id}-wrong")


def show_other_laboratories(entries: Sequence[Entry]) -> None:
    """Show every model's accuracy in its home laboratory against its mean in others, and each laboratory in a table."""
    table = leaderboard.table(entries)
    if table.dropna(subset=["home", "away"]).empty:
        st.info("No model is scored both in its home laboratory and in others.")
        return
    plots.downloadable(figures.home_against_others(table), "other laboratories")
    st.caption(
        "All models: mean of the validation laboratories. Below the dotted line, a model is worse there than at home.",
        help="No model is trained on a validation laboratory, but choices were made by it. Each is asked with the "
        "sample that fits it.",
    )
    rows = laboratory_table(entries)
    st.dataframe(rows, hide_index=True)
    downloads(rows, "other-laboratories")


def laboratory_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row a model and validation laboratory: balanced accuracy with the sample that fits, and all kinds alike."""
    scores = [(entry, leaderboard.other_laboratories(entry)) for entry in entries]
    rows = [
        {
            "model": entry.title,
            "laboratory": one.laboratory,
            "balanced accuracy": percent(one.score),
            "sample": one.sample or "not stated",
            "asked alike": percent(one.alike) if one.alike else NOT_SCORED,
        }
        for entry, found in scores
        if found
        for one in found.laboratories
    ]
    return pd.DataFrame(rows, columns=["model", "laboratory", "balanced accuracy", "sample", "asked alike"])


def show_training_curves(entries: Sequence[Entry], titles: Mapping[str, str]) -> None:
    """Show training histories overlaid."""
    histories = {titles[entry.id]: read_history(entry) for entry in entries}
    histories = {title: history for title, history in histories.items() if "epoch" in history}
    if not histories:
        st.info("None of these models has a training history; classical heads and ensembles have none.")
        return
    columns = [c for c in HISTORY_COLUMNS if any(c in history for history in histories.values())]
    column = st.segmented_control(
        "Curve", columns, default=columns[0], required=True, format_func=HISTORY_COLUMNS.__getitem__, key="curve"
    )
    plots.downloadable(training_curves(histories, column), "training curves")
    downloads(pd.concat([h.assign(model=title) for title, h in histories.items()]), "histories")


def show_scores(models: Sequence[ScoredModel]) -> None:
    """Show accuracy, precision, recall and F1 as bars, and every score in a table."""
    scores = {model.title: model.scores for model in models}
    plots.downloadable(figures.bars(scores), "scores")
    table = scores_table(scores)
    st.dataframe(table, hide_index=True)
    downloads(table, "scores")
