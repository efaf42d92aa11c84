"""Sentences and numbers as pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import streamlit as st

from zoo.attribution import METHODS
from zoo.benchmarks import benchmark_title, leaderboard
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.scoring import METRICS
from zoo.entry import Entry, Metric, is_on_frames
from zoo.lazy import lazy_module
from zoo.scores.bootstrap import Interval
from zoo.serving.results import Explanation, Prediction
from zoo.sources.catalogue import crop_detector_hash

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

MARKDOWN = "\\`*_{}[]()#+-.!|~<>$:"  # characters that Markdown acts on
PICTURE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?")  # Markdown of a picture
LINK = re.compile(r"\[([^\[\]\n]*)\]\((https?://[^\s()<>]+)\)")  # Markdown of a link
FEW_CELLS = 100  # below, an accuracy says how many cells it rests on
FAMILIARITY_HELP = (
    "Familiar: like the training cells. Shifted: a cell of another laboratory, stain or camera, or no cell. "
    "Unknown: like no cell of any known laboratory."
)


def plain(text: object) -> str:
    """Text from outside for use inside Markdown: characters that Markdown acts on are escaped."""
    return "".join(f"\\{letter}" if letter in MARKDOWN else letter for letter in str(text))


def card(text: str) -> str:
    """A stranger's Markdown for a page: nothing of it is fetched, and a link is its address.

    Pictures are left out: they are in the card's repository. What else could be a picture, a link with another text
    than its address, or the definition of one, is shown as it is written.
    """
    text = LINK.sub(r"\1 (<\2>)", PICTURE.sub("", text))
    return text.replace("![", "!\\[").replace("](", "]\\(").replace("][", "]\\[").replace("]:", "]\\:")


def class_description(entry: Entry, label: str) -> str:
    """A class with the details of its description."""
    return entry.config.label_descriptions.get(label, label)


def counted(number: int, things: str, one: str = "") -> str:
    """A number of things in words: "1 cell", "2 cells"; `one` where it is not `things` without its s."""
    return f"{number:,} {things}" if number != 1 else f"1 {one or things.removesuffix('s')}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{round(100 * difference, 1) or 0.0:+.1f}"


def percent(metric: Metric | Interval) -> str:
    """A share in percent, with its interval if it has one."""
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.1f} %"
    return f"{100 * metric.value:.1f} % ({100 * metric.low:.1f} to {100 * metric.high:.1f})"


def score_text(name: str, metric: Metric | Interval) -> str:
    """A score with its interval: shares in percent, others (log loss, AUC, kappa) as numbers."""
    if name in METRICS and not METRICS[name].percent:
        return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"
    return percent(metric)


def scores_table(scores: Mapping[str, Mapping[str, Metric | Interval]], names: Iterable[str] = METRICS) -> pd.DataFrame:
    """Scores in words: a row for each metric that any column has, a column for each model or benchmark.

    Args:
        scores: Values by name of the metric, by title of the column.
        names: Metrics to show, in this order.
    """
    rows = []
    for name in names:
        if any(name in values for values in scores.values()):
            texts = {
                title: score_text(name, values[name]) if name in values else NOT_SCORED
                for title, values in scores.items()
            }
            rows.append({"score": METRICS[name].title, **texts})
    return pd.DataFrame(rows)


def short_description(entry: Entry) -> str:
    """One line about a model: its number of classes and its balanced accuracy at home and elsewhere."""
    home = entry.evaluation.benchmarks.get(leaderboard.home_benchmark(entry) or "")
    few = f" on {home.n_cells} cells" if home and home.n_cells < FEW_CELLS else ""
    text = f"{len(entry.labels)} classes. Accuracy {at_home(entry, interval=bool(few))} at home{few}"
    return f"{text}; other laboratories: {other_laboratories(entry)}."


def at_home(entry: Entry, interval: bool = False) -> str:
    """Balanced accuracy in the model's own laboratory, the same on every page."""
    found = leaderboard.cells(entry).get("home")
    if found is None:
        return NOT_SCORED
    value = Interval(found.value, found.low, found.high)
    return percent(value) if interval else f"{100 * value.value:.1f} %"


def other_laboratories(entry: Entry) -> str:
    """Balanced accuracy in the validation laboratories: the mean, and the worst with its name."""
    scores = leaderboard.other_laboratories(entry)
    if scores is None:
        return NOT_SCORED
    worst = scores.worst
    text = f"mean {100 * scores.mean.value:.1f} % (worst {100 * worst.score.value:.1f} %, {plain(worst.laboratory)})"
    return f"{text}, not scored in {plain(', '.join(scores.missing))}" if scores.missing else text


def description(entry: Entry) -> str:
    """A paragraph about a model: its summary, and its accuracy with intervals."""
    benchmarks, text = entry.evaluation.benchmarks, plain(entry.config.zoo.summary)
    name = leaderboard.home_benchmark(entry) or ""
    home = benchmarks.get(name)
    if home and "balanced_accuracy" in home.metrics:
        text += (
            f" At home: balanced accuracy {at_home(entry, interval=True)} on {plain(benchmark_title(name, home))} "
            f"({home.n_images:,} images of {home.n_cells:,} cells)."
        )
    away = leaderboard.other_laboratories(entry)
    if away is not None:
        names = plain(", ".join(one.laboratory for one in away.laboratories))
        text += (
            f" Other laboratories ({names}; validation, not trained on): balanced accuracy "
            f"{other_laboratories(entry)}, asked with the sample that fits each."
        )
        if away.mean_alike is not None:
            text += f" Asked with all kinds alike: {percent(away.mean_alike)}."
    if entry.config.zoo.cut_by and entry.config.zoo.cut_by != crop_detector_hash(entry.config.zoo.crop):
        text += " **It was trained on cells cut by another version of the detector: its figures may not hold here.**"
    return text


def warn_if_unfamiliar(entry: Entry, prediction: Prediction) -> None:
    """Show whether the answer is accepted, or why it is for review."""
    if prediction.familiarity == "unknown":
        st.error("**No recognisable blood cell.** Try one stained cell, in focus.", icon=":material/block:")
    elif prediction.acceptance.accepted:
        st.markdown(":green-badge[:material/check: accepted]", help=_accepted_help(entry))
    else:
        reasons = plain("; ".join(prediction.acceptance.reasons))
        st.warning(f"**For review**: {reasons}. {check_answers(entry)}", icon=":material/help:")


def _accepted_help(entry: Entry) -> str:
    """Figures of accepted answers, in words."""
    measured = entry.acceptance
    if measured is None or not measured.laboratories:
        return "Limits of acceptance were not measured for this model: the usual ones are used."
    found = measured.laboratories.values()
    share = 100 * sum(one.share for one in found) / len(found)
    right = [100 * one.right for one in found if one.right is not None]
    if not right:
        return "In laboratories that the limits were chosen without, no answer was accepted."
    return (
        f"In laboratories that the limits were chosen without, {share:.0f} % of the answers were accepted; of these "
        f"{sum(right) / len(right):.0f} % were right on average, {min(right):.0f} % in the worst."
    )


def check_answers(entry: Entry) -> str:
    """Advice for pictures from another laboratory, with the accuracy that was measured in some."""
    away = leaderboard.other_laboratories(entry)
    if away is None:
        return "Check the answer: this model was not scored on another laboratory."
    mean, worst = 100 * away.mean.value, 100 * away.worst.score.value
    return f"Check the answer: in other laboratories {mean:.0f} % were right on average, {worst:.0f} % in the worst."


def show_unseen_confidence(entry: Entry, prediction: Prediction) -> None:
    """Show the confidence to expect in a laboratory that the model never saw, where it was measured."""
    if prediction.unseen_confidence is None:
        return
    known, text = entry.other_laboratories, None
    if known is not None:
        places = " and ".join(f"{100 * score.value:.0f} % in {plain(name)}" for name, score in known.balanced.items())
        text = f"Models trained without one of their laboratories had a balanced accuracy of {places} there."
    st.caption(
        f"Expect about {100 * prediction.unseen_confidence:.0f} % if this slide comes from a new laboratory.", help=text
    )


def verdict(entry: Entry, explanation: Explanation) -> str:
    """The predicted class, and the class that the map is about."""
    prediction, names = explanation.prediction, entry.class_names
    text = f"says **{plain(names[prediction.label])}** ({100 * prediction.confidence:.1f} %)"
    if explanation.label != prediction.label or explanation.against:
        probability = prediction.probabilities[explanation.label]
        text += f"; shown: evidence for **{plain(names[explanation.label])}** ({100 * probability:.1f} %)"
    return text + (f" rather than **{plain(names[explanation.against])}**" if explanation.against else "")


def show_map_quality(entry: Entry, method: str) -> None:
    """Show how often the entry's maps by a method lie on the cell, if it was measured; details in the help."""
    quality, details = entry.evaluation.explanations.get(method), map_quality(entry, method)
    if quality is None or not details:
        return
    scores = list(quality.localisation.values())
    on_cell = min(scores, key=lambda score: score.pointing.value).pointing if scores else None
    if on_cell is not None:
        st.caption(f"Such maps lie on the cell in {100 * on_cell.value:.0f} % of test pictures.", help=details)
    else:
        st.caption("The quality of such maps was measured.", help=details)


def map_quality(entry: Entry, method: str) -> str:
    """Measured quality of the entry's maps by a method; empty if it was not measured."""
    quality = entry.evaluation.explanations.get(method)
    if quality is None:
        return ""
    parts = []
    for name, scores in quality.localisation.items():
        where = "whole smear frames" if is_on_frames(name) else "augmented fields"
        parts.append(
            f"land on the cell in {percent(scores.pointing)} of {scores.images} {where} "
            f"(by chance {100 * scores.chance:.0f} %)"
        )
    if quality.road:
        parts.append(f"have a ROAD of {quality.road.value:+.2f} ({quality.road.low:+.2f} to {quality.road.high:+.2f})")
    return f"Measured: this model's {METHODS[method].title} maps {', '.join(parts)}." if parts else ""
