"""Which model is better, and where? Confusion matrices and scores side by side, all from stored predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import shared
from zoo import metrics
from zoo.entry import Entry, EntryError, Metric, read_predictions
from zoo.metrics import SCORES

ROW_PIXELS = 46
LEAST_SHARE = 0.2  # of a row, at which the colour scale of a difference ends at the least


@st.cache_data(max_entries=32, show_spinner=False)
def load(_entry: Entry, benchmark: str, folder: str, changed: float) -> pd.DataFrame:
    """Stored predictions of an entry; `folder` and `changed` are the cache's key."""
    return read_predictions(_entry, benchmark)


@st.cache_data(max_entries=32, show_spinner="Resampling cells …")
def scored(table: pd.DataFrame, labels: list[str]) -> tuple[dict[str, Metric], pd.DataFrame]:
    """Scores and per-class scores of a prediction table, with intervals."""
    found = {name: Metric(**value) for name, value in metrics.as_dict(metrics.evaluate(table, labels)).items()}
    return found, metrics.per_class(table, labels)


@st.cache_data(max_entries=64, show_spinner=False)
def difference(first: pd.DataFrame, second: pd.DataFrame, labels: list[str]) -> metrics.Interval:
    """Paired difference in accuracy."""
    return metrics.accuracy_difference(first, second, labels)


def shared_benchmarks(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Test benchmarks and the entries that hold predictions on them: honest ones first, then those with most."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        for name, benchmark in entry.evaluation.benchmarks.items():
            if benchmark.role == "test":
                found.setdefault(name, []).append(entry)

    def rank(item: tuple[str, list[Entry]]) -> tuple[bool, int]:
        name, some = item
        return any(entry.evaluation.benchmarks[name].leaky for entry in some), -len(some)

    return dict(sorted(found.items(), key=rank))


def counts(table: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Confusion counts of a prediction table."""
    truth, probabilities = metrics.arrays(table, labels)
    return metrics.confusion(truth, probabilities.argmax(1), len(labels))


def heatmap(values: np.ndarray, hover: np.ndarray, labels: list[str], top: float, normalised: bool) -> go.Figure:
    """A confusion matrix; 0..`top` is the colour scale that all models share."""
    text = np.vectorize(lambda v: f"{100 * v:.1f}" if normalised else f"{v:,.0f}")(values)
    return _matrix(values, hover, labels, text, {"colorscale": "Purples", "zmin": 0, "zmax": top})


def difference_map(values: np.ndarray, labels: list[str], normalised: bool) -> go.Figure:
    """Difference of two matrices, red where the first has more, blue where the second has."""
    text = np.vectorize(lambda v: f"{100 * v:+.1f}" if normalised else f"{v:+,.0f}")(values)
    # differences of a few points should not look like abysses
    top = max(float(np.abs(values).max()), LEAST_SHARE if normalised else 1.0)
    return _matrix(values, text, labels, text, {"colorscale": "RdBu_r", "zmin": -top, "zmax": top, "zmid": 0})


def _matrix(values: np.ndarray, hover: np.ndarray, labels: list[str], text: np.ndarray, scale: dict) -> go.Figure:
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=labels,
            y=labels,
            text=text,
            texttemplate="%{text}",
            customdata=hover,
            hovertemplate="true %{y}<br>called %{x}<br>%{customdata}<extra></extra>",
            showscale=False,
            xgap=1,
            ygap=1,
            **scale,
        )
    )
    figure.update_layout(
        height=130 + ROW_PIXELS * len(labels),
        margin={"l": 0, "r": 0, "t": 10, "b": 0},
        xaxis={"title": "called", "fixedrange": True, "tickangle": -40, "automargin": True},
        yaxis={"title": "true", "autorange": "reversed", "fixedrange": True, "automargin": True},
    )
    return figure


def shares(matrix: np.ndarray) -> np.ndarray:
    """Rows of a matrix divided by their sums; rows without images stay 0."""
    total = matrix.sum(1, keepdims=True)
    return np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)


def matrix_csv(matrix: np.ndarray, labels: list[str]) -> bytes:
    """A matrix of counts as CSV, true labels down, called ones across."""
    return shared.csv(pd.DataFrame(matrix, index=labels, columns=labels).rename_axis("true").reset_index())


def show_matrices(named: dict[str, pd.DataFrame], titles: dict[str, str], labels: list[str]) -> None:
    """All matrices on one colour scale, and the difference of two."""
    st.subheader("Confusion matrices")
    normalised = st.segmented_control(
        "Show", ["shares of each row", "counts"], default="shares of each row", label_visibility="collapsed"
    )
    normalised = normalised != "counts"
    raw = {name: counts(table, labels) for name, table in named.items()}
    drawn = {name: shares(matrix) if normalised else matrix for name, matrix in raw.items()}
    top = 1.0 if normalised else float(max(matrix.max() for matrix in raw.values()))
    for names in shared.chunks(list(named), 2):
        for column, name in zip(st.columns(2, gap="large"), names, strict=False):
            with column:
                hover = np.vectorize(lambda n, s: f"{n:,} images, {100 * s:.1f} % of the row")(
                    raw[name], shares(raw[name])
                )
                st.markdown(f"**{titles[name]}**" + (" · % of the true class" if normalised else " · images"))
                figure = heatmap(drawn[name], hover, labels, top, normalised)
                st.plotly_chart(figure, config=shared.CHART, key=f"matrix {name}")
                st.download_button(
                    "Counts as CSV", matrix_csv(raw[name], labels), f"confusion-{name}.csv", icon=":material/download:"
                )
    st.subheader("Difference of two")
    one, other = st.columns(2)
    names = list(named)
    first = one.selectbox("First", names, index=0, format_func=titles.get)
    second = other.selectbox("minus second", names, index=1, format_func=titles.get)
    gap = difference(named[first], named[second], labels)
    sure = "the interval excludes zero" if gap.low > 0 or gap.high < 0 else "no clear difference: it includes zero"
    st.markdown(
        f"Accuracy of **{titles[first]}** minus **{titles[second]}**: {100 * gap.value:+.1f} points "
        f"({100 * gap.low:+.1f} to {100 * gap.high:+.1f}; {sure})."
    )
    figure = difference_map(drawn[first] - drawn[second], labels, normalised)
    st.plotly_chart(figure, config=shared.CHART, key="difference")


def show_classes(found: dict[str, pd.DataFrame], titles: dict[str, str]) -> None:
    """Precision, recall and F1 of each class, one chart a score, and the table."""
    st.subheader("Class by class")
    score = (
        st.segmented_control("Score", ["f1", "precision", "recall"], default="f1", format_func=str.capitalize) or "f1"
    )
    figure = go.Figure()
    for name, table in found.items():
        up, down = table[f"{score}_high"] - table[score], table[score] - table[f"{score}_low"]
        figure.add_bar(
            name=titles[name],
            x=table["label"],
            y=table[score],
            error_y={"type": "data", "array": up.clip(0), "arrayminus": down.clip(0), "color": "#888", "thickness": 1},
            hovertemplate="%{x}: %{y:.1%}<extra>" + titles[name] + "</extra>",
        )
    figure.update_layout(
        height=340,
        barmode="group",
        margin={"l": 0, "r": 0, "t": 10, "b": 0},
        yaxis={"range": [0, 1.02], "tickformat": ".0%", "fixedrange": True},
        xaxis={"fixedrange": True},
        legend={"orientation": "h", "y": -0.15},
    )
    st.plotly_chart(figure, config=shared.CHART, key="classes")
    everything = pd.concat([table.assign(model=titles[name]) for name, table in found.items()])
    order = ["model", "label", "images", "cells", "precision", "recall", "f1"]
    intervals = [f"{name}_{end}" for name in ("precision", "recall", "f1") for end in ("low", "high")]
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(everything[order], hide_index=True, column_config=dict.fromkeys(order[4:], share))
    st.download_button(
        "Class scores as CSV", shared.csv(everything[order + intervals]), "class-scores.csv", icon=":material/download:"
    )


shared.page("Compare models")
benchmarks = shared_benchmarks([entry for entry in shared.entries() if entry.ok])
if not benchmarks:
    st.info("No model in the zoo keeps test predictions. Train one with `python -m training train`.")
    st.stop()
where, who = st.columns([1, 2], gap="large")
name = where.selectbox(
    "Benchmark",
    list(benchmarks),
    format_func=lambda key: f"{benchmarks[key][0].evaluation.benchmarks[key].title} ({len(benchmarks[key])} models)",
)
candidates = {entry.id: entry for entry in benchmarks[name]}
if len(candidates) < 2:
    st.info(f"Only {benchmarks[name][0].title} has been scored on this benchmark. Two are needed to compare.")
    st.stop()
titles = shared.titles(list(candidates.values()))
current = st.session_state.get(shared.MODEL)
first = [current] if current in candidates else []
default = list(dict.fromkeys([*first, *candidates]))[:2]
chosen = who.multiselect("Models", list(candidates), default=default, format_func=titles.get, key=f"models {name}")
if len(chosen) < 2:
    st.info("Choose at least two models.")
    st.stop()
described = {key: candidates[key].evaluation.benchmarks[name] for key in chosen}
labels = described[chosen[0]].labels
if any(set(benchmark.labels) != set(labels) for benchmark in described.values()):
    st.error("These models name different classes on this benchmark. Choose models with the same classes.")
    st.stop()
if len({benchmark.split_hash for benchmark in described.values()}) > 1:
    st.warning("These models were scored on different versions of this benchmark; compare with care.")
try:
    tables = {
        key: load(entry, name, str(entry.folder), (entry.folder / "evaluation.json").stat().st_mtime)
        for key, entry in ((key, candidates[key]) for key in chosen)
    }
except (EntryError, OSError) as error:
    st.error(str(error))
    st.stop()
found = {key: scored(table, labels) for key, table in tables.items()}
benchmark = described[chosen[0]]
st.caption(
    f"{benchmark.n_images:,} images of {benchmark.n_cells:,} independent cells. Intervals: 95 %, bootstrap over source "
    "cells. Everything here is computed from the stored predictions."
)
for key, scored_on in described.items():
    share = f"{100 * scored_on.leak_share:.1f} % of test images show a cell that training pictures show too"
    if scored_on.leaky:
        st.warning(f"**Leaky split**, {titles[key]}: {share}. These figures are only good for reproducing others.")
    elif scored_on.leak_share:
        st.caption(f":material/info: {titles[key]}: {share}; its card tells what that changes.")
scores = shared.scores_table({titles[key]: found[key][0] for key in chosen}, SCORES)
st.dataframe(scores, hide_index=True)
st.download_button("Scores as CSV", shared.csv(scores), "scores.csv", icon=":material/download:")
show_matrices(tables, titles, labels)
show_classes({key: found[key][1] for key in chosen}, titles)
