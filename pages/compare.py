"""Which model should I use, and how sure is that? Models side by side, all from stored predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import shared
from zoo.api import default_runtime
from zoo.attribution import METHODS, ExplanationError
from zoo.attribution.overlay import overlay
from zoo.benchmarks import find_source, leaderboard, published, robustness
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.benchmarks.scoring import METRICS, intervals, is_corrupted, rows_hash, score
from zoo.data.configured import places
from zoo.entry import Benchmark, Entry, EntryError, read_history, read_predictions, readable_entries
from zoo.figures import comparison as figures
from zoo.imaging.decode import ImageError
from zoo.scores import significance
from zoo.scores.bootstrap import Interval
from zoo.scores.calibration import scaling_of
from zoo.scores.predictions import label_arrays, table_confusion
from zoo.scores.temperature import scale_probabilities
from zoo.serving.runtime import BusyError
from zoo.sources.catalogue import distinct_titles

FIRST = 3  # models shown before anybody chose
PICTURES = 24  # shown of those behind a cell of a matrix
TABS = (
    "Class by class",
    "ROC and PR",
    "Calibration",
    "Corruption",
    "Agreement",
    "Home and away",
    "Training curves",
    "All scores",
)
CURVES = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "learning_rate")


@dataclass(frozen=True)
class Shown:
    """A model on a benchmark: its predictions, their scores and what the entry says of the benchmark."""

    entry: Entry
    title: str
    name: str
    benchmark: Benchmark
    table: pd.DataFrame

    @property
    def scores(self) -> Mapping[str, Interval]:
        """Every score, computed when first asked for, then kept for all sessions."""
        return self._scored[0]

    @property
    def classes(self) -> pd.DataFrame:
        """Scores by class, one row a label."""
        return self._scored[1]

    @property
    def _scored(self) -> tuple[dict[str, Interval], pd.DataFrame]:
        return scored(self.entry, self.name, str(self.entry.folder), stamp(self.entry))


def stamp(entry: Entry) -> float:
    """When the entry's evaluation was last written: part of every cache's key."""
    return (entry.folder / "evaluation.json").stat().st_mtime


@st.cache_data(max_entries=256, show_spinner=False)
def load(_entry: Entry, benchmark: str, folder: str, changed: float) -> tuple[pd.DataFrame, str]:
    """Stored predictions, and a hash of the question they answer; `folder` and `changed` are the cache's key."""
    table = read_predictions(_entry, benchmark)
    return table, rows_hash(table)


@st.cache_data(max_entries=256, show_spinner="Resampling cells …")
def scored(_entry: Entry, benchmark: str, folder: str, changed: float) -> tuple[dict[str, Interval], pd.DataFrame]:
    """Scores and scores by class of an entry on a benchmark."""
    table, _ = load(_entry, benchmark, folder, changed)
    found = score(table, _entry.evaluation.benchmarks[benchmark].labels, scaling_of(_entry))
    return intervals(found), found.classes


@st.cache_data(max_entries=64, show_spinner="Comparing cell by cell …")
def compared(_tables: Mapping[str, pd.DataFrame], labels: Sequence[str], key: tuple) -> pd.DataFrame:
    """Every two models; `key` names the tables."""
    return significance.compare_pairs(_tables, labels)


@st.cache_data(max_entries=64, show_spinner=False)
def corrupted(_table: pd.DataFrame, labels: Sequence[str], key: tuple) -> pd.DataFrame:
    """Error by kind and severity; `key` names the table."""
    return robustness.by_kind(robustness.errors(_table, labels))


@st.cache_data(max_entries=64, show_spinner="Asking which leads are significant …")
def leaders(_entries: Sequence[Entry], key: tuple) -> dict[str, str | None]:
    """Id of the leader of each column, None where there is none; `key` names the entries."""
    return {name: leaderboard.best(_entries, name) for name in leaderboard.COLUMNS}


def chart(figure: go.Figure, key: str, **more: object) -> object:
    """A figure that downloads in the chosen format, under its own name."""
    kind = st.session_state.get("figures") or "PNG"
    config = shared.CHART | {
        "displayModeBar": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": kind.lower(), "filename": key.replace(" ", "-"), "scale": 2},
    }
    return st.plotly_chart(figure, config=config, key=key, **more)


def downloads(table: pd.DataFrame, stem: str, words: pd.DataFrame | None = None) -> None:
    """A table as CSV, and as Markdown to copy; `words` is what the Markdown shows where it is not the same."""
    with st.container(horizontal=True):
        st.download_button("CSV", shared.csv(table), f"{stem}.csv", icon=":material/download:", key=f"csv {stem}")
        with st.popover("Markdown", icon=":material/content_copy:"):
            st.code(leaderboard.markdown(_rounded(table) if words is None else words), language="markdown")


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round(dict.fromkeys(table.select_dtypes("float").columns, 4))


def with_tests(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries that keep predictions on some test set, by id."""
    return {e.id: e for e in entries if any(b.role == "test" for b in e.evaluation.benchmarks.values())}


def leading(entries: Sequence[Entry]) -> list[str]:
    """Ids, best at home first; leaky ones last."""
    table = leaderboard.table(entries)
    return table.sort_values(["leaky", "home"], ascending=[True, False])["id"].tolist()


def benchmarks_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Test benchmarks and the entries that were scored on them: honest ones first, then those with most models."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        for name, benchmark in entry.evaluation.benchmarks.items():
            if benchmark.role == "test":
                found.setdefault(name, []).append(entry)

    def rank(item: tuple[str, list[Entry]]) -> tuple[bool, bool, int, int]:
        name, some = item
        at_home = sum(leaderboard.home_benchmark(entry) == name for entry in some)
        leaky = any(entry.evaluation.benchmarks[name].leaky for entry in some)
        return leaky, name.endswith("-corrupted"), -len(some), -at_home

    return dict(sorted(found.items(), key=rank))


def show_leaderboard(entries: Sequence[Entry]) -> None:
    """One row a model; numbers to sort by, each with its interval drawn beside it."""
    key = tuple((entry.id, stamp(entry)) for entry in entries)
    table, first = leaderboard.table(entries), leaders(entries, key)
    columns: dict[str, object] = {"model": st.column_config.TextColumn("model", pinned=True, width=190)}
    shown = table[["model"]].copy()
    for name, column in leaderboard.COLUMNS.items():
        if table[name].notna().any():
            ends = figures.leaderboard_range(table, name)
            shown[name] = table[name]
            shown[f"{name} bar"] = [
                figures.interval_bar(
                    row[name], row[f"{name}_low"], row[f"{name}_high"], *ends, row["id"] == first[name]
                )
                for row in table.to_dict("records")
            ]
            columns[name] = st.column_config.NumberColumn(column.title, help=column.help, format="percent", width=110)
            columns[f"{name} bar"] = st.column_config.ImageColumn("95 %", help="Interval over source cells.", width=130)
    shown["megabytes"], shown["images_per_second"] = table["megabytes"], table["images_per_second"]
    columns["megabytes"] = st.column_config.NumberColumn("MB", format="%.1f", help="Size of its weights.")
    columns["images_per_second"] = st.column_config.NumberColumn(
        "images/s", format="%.0f", help="Measured when it was evaluated, on the device its evaluation names."
    )
    st.dataframe(
        shown.dropna(axis="columns", how="all"),
        hide_index=True,
        column_config=columns,
        row_height=34,
        height=min(38 + 34 * len(shown), 640),
        placeholder=NOT_SCORED,
    )
    named = table.set_index("id")["model"]
    told = [f"**{shared.plain(named[i])}** {leaderboard.COLUMNS[c].title}" for c, i in first.items() if i in named]
    st.caption(
        "Click a column's head to sort. "
        + (f"Significantly best (red): {'; '.join(told)}. " if told else "No lead is significant. ")
        + "Bars are 95 % intervals over source cells; a lead counts where a paired bootstrap, adjusted after Holm, "
        "finds it against every other model on the same pictures."
    )
    if table["leaky"].any():
        some = ", ".join(table.loc[table["leaky"], "model"])
        st.warning(f"**Leaky split** at home, only good for reproducing others: {shared.plain(some)}.")
    downloads(table, "leaderboard", leaderboard.in_words(table, first))


def prepare(entries: Sequence[Entry], name: str, titles: Mapping[str, str]) -> list[Shown]:
    """The models that can be shown on a benchmark; of the others is said why not."""
    found, questions = [], {}
    for entry in entries:
        described = entry.evaluation.benchmarks[name]
        try:
            table, question = load(entry, name, str(entry.folder), stamp(entry))
        except (EntryError, OSError) as error:
            st.error(f"{titles[entry.id]} is left out on {name}: {error}")
            continue
        if found and set(described.labels) != set(found[0].benchmark.labels):
            st.error(
                f"{shared.plain(titles[entry.id])} is left out: it names other classes on {name} than "
                f"{shared.plain(found[0].title)}."
            )
            continue
        questions.setdefault(question, []).append(titles[entry.id])
        found.append(Shown(entry, titles[entry.id], name, described, table))
    if len(questions) > 1:
        groups = "; ".join(", ".join(some) for some in questions.values())
        st.warning(f"These models were scored on different versions of {name}; compare with care: {groups}.")
    for one in found:
        share = f"{100 * one.benchmark.leak_share:.1f} % of test images show a cell that training pictures show too"
        if one.benchmark.leaky:
            st.warning(
                f"**Leaky split**, {shared.plain(one.title)}: {share}. These figures are only good for reproducing "
                "others."
            )
        elif one.benchmark.leak_share:
            st.caption(f":material/info: {shared.plain(one.title)}: {share}; its card tells what that changes.")
    return found


def show_matrices(found: Sequence[Shown], labels: list[str], name: str) -> None:
    """All matrices on one colour scale; a chosen cell shows the images behind it."""
    st.subheader("Confusion matrices")
    way = st.segmented_control(
        "Shown",
        figures.SHOWN,
        default=figures.SHOWN[1],
        required=True,
        key="matrix",
        bind="query-params",
        label_visibility="collapsed",
    )
    counts = {one.title: table_confusion(one.table, labels) for one in found}
    top = 1.0 if way != figures.SHOWN[0] else float(max((c.max() for c in counts.values()), default=1))
    behind: tuple[Shown, str, str] | None = None
    for some in shared.chunks(list(found), 2):
        for column, one in zip(st.columns(2, gap="large"), some, strict=False):
            with column:
                st.markdown(f"**{shared.plain(one.title)}** · {'images' if way == figures.SHOWN[0] else '% ' + way}")
                drawn = figures.confusion(counts[one.title], labels, way, top)
                event = chart(drawn, f"confusion {one.entry.id}", on_select="rerun", selection_mode="points")
                for point in event.selection.points[:1] if event else []:
                    behind = (one, *point["customdata"])
                downloads(
                    pd.DataFrame(counts[one.title], index=labels, columns=labels).rename_axis("true").reset_index(),
                    f"confusion-{one.entry.id}",
                )
    if behind:
        show_behind(*behind, labels, name)
    else:
        st.caption("Choose a square to see the images behind it.")
    if len(found) > 1:
        show_difference(found, counts, labels, way)


def show_behind(one: Shown, true: str, called: str, labels: list[str], name: str) -> None:
    """The images behind a cell of a matrix."""
    answers = np.array(labels)[one.table[labels].to_numpy().argmax(1)]
    rows = one.table[(one.table["label"] == true) & (answers == called)]
    rows = rows.sort_values(called, ascending=False)
    st.markdown(
        f"**{len(rows):,} images** of {shared.plain(true)} that {shared.plain(one.title)} calls {shared.plain(called)}"
    )
    show_pictures(rows.head(PICTURES), one, name, f"behind {true} {called}")
    if len(rows) > PICTURES:
        st.caption(f"The {PICTURES} surest are shown; the table holds all.")
    downloads(rows, f"{one.entry.id}-{true}-called-{called}")


def show_pictures(rows: pd.DataFrame, one: Shown, name: str, key: str) -> None:
    """Pictures with what was said of them, where the data are at hand; a table where not."""
    sources = {f: find_source(name, f, one.entry.data_set, places()) for f in rows["file"]}
    if not any(sources.values()):
        st.dataframe(rows, hide_index=True)
        if len(rows):
            st.caption("The pictures are not at hand: name the data sets' folders in HEMAZOO_DATASETS to see them.")
        return
    for some in shared.chunks(list(rows.to_dict("records")), 6):
        for column, row in zip(st.columns(6), some, strict=False):
            with column:
                source = sources[row["file"]]
                if source is not None:
                    try:
                        st.image(source.image(), width="stretch")
                    except ImageError as error:
                        st.caption(str(error))
                best = max(one.benchmark.labels, key=lambda label: row[label])
                st.caption(
                    f"{shared.plain(Path(row['file']).name)}: {row['label']}, called {best} ({100 * row[best]:.0f} %)"
                )
                if source and one.entry.usable and st.button("Why?", key=f"{key} {row['file']}", width="stretch"):
                    why(one, row["file"], source)


@st.dialog("Why?", width="large")
def why(one: Shown, file: str, source: object) -> None:
    """A picture with its Grad-CAM."""
    try:
        image = source.image()
        found = default_runtime().explain(one.entry, image)
    except (ImageError, EntryError, ExplanationError, BusyError) as error:
        st.error(shared.plain(error))
        return
    left, right = st.columns(2)
    left.image(image, width="stretch", caption=file)
    said = found.prediction
    right.image(
        overlay(image, found.values),
        width="stretch",
        caption=f"{METHODS[found.method].title} for {said.label} ({100 * said.confidence:.1f} %): bright speaks for it",
    )


def show_difference(found: Sequence[Shown], counts: Mapping[str, np.ndarray], labels: list[str], way: str) -> None:
    """Two models' matrices subtracted, and what tests say of the two."""
    st.subheader("Difference of two")
    one, other = st.columns(2)
    by_id = {shown.entry.id: shown for shown in found}
    first = by_id[one.selectbox("First", list(by_id), format_func=lambda i: by_id[i].title, key="first")]
    second = by_id[other.selectbox("minus second", list(by_id), 1, format_func=lambda i: by_id[i].title, key="second")]
    gap, test = _gap(first, second, labels)
    if gap is None or test is None:
        st.info("The two were scored on different pictures: there is nothing to subtract.")
        return
    sure = "the interval excludes zero" if gap.excludes_zero else "no clear difference: it includes zero"
    st.markdown(
        f"Accuracy of **{shared.plain(first.title)}** minus **{shared.plain(second.title)}**: {100 * gap.value:+.1f} "
        f"points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}; {sure}). Cells that only the first calls rightly: "
        f"{test.first_only}, only the second: {test.second_only} (exact McNemar, p = {test.p:.2g})."
    )
    left, _ = st.columns(2, gap="large")
    with left:
        chart(figures.difference(counts[first.title], counts[second.title], labels, way), "difference")


def _gap(first: Shown, second: Shown, labels: list[str]) -> tuple[Interval | None, significance.McNemar | None]:
    try:
        return (
            significance.accuracy_difference(first.table, second.table, labels),
            significance.mcnemar(first.table, second.table, labels),
        )
    except ValueError:
        return None, None


def show_classes(found: Sequence[Shown], labels: list[str]) -> None:
    """Precision, recall, F1, AUC and average precision of each class."""
    kinds = ["f1", "precision", "recall", "auc", "average_precision"]
    names = {"f1": "F1", "auc": "AUC", "average_precision": "average precision"}
    kind = st.segmented_control(
        "Score", kinds, default="f1", required=True, format_func=lambda k: names.get(k, k), key="of class"
    )
    chart(figures.per_class({one.title: one.classes for one in found}, kind), "class by class")
    everything = pd.concat([one.classes.assign(model=one.title) for one in found])
    order = ["model", "label", "images", "cells", *kinds]
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(everything[order], hide_index=True, column_config=dict.fromkeys(kinds, share))
    ends = [f"{k}_{end}" for k in kinds for end in ("low", "high")]
    downloads(everything[order + ends], "class-scores")


def show_operating(found: Sequence[Shown], labels: list[str]) -> None:
    """ROC and precision–recall curves of one class against the rest."""
    label = st.selectbox("Class against the rest", labels, key="class")
    tables = {one.title: one.table for one in found}
    for column, kind in zip(st.columns(2, gap="large"), ("roc", "pr"), strict=True):
        with column:
            chart(figures.operating(tables, label, kind), f"{kind} {label}")


def show_calibration(found: Sequence[Shown]) -> None:
    """Reliability before or after temperature scaling, and accuracy of the surest."""
    sides = {"as the app says it": None, "before scaling": "before", "after scaling": "after"}
    way = st.segmented_control("Confidence", list(sides), default=next(iter(sides)), required=True, key="scaling")
    drawn = {}
    for one in found:
        truth, shares = label_arrays(one.table, one.benchmark.labels)
        exponent = getattr(scaling_of(one.entry), sides[way] or "", 1.0) or 1.0
        drawn[one.title] = (truth, scale_probabilities(shares, exponent))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Reliability**: on the line, confidence is what it says")
        chart(figures.reliability(drawn), "reliability")
    with right:
        st.markdown("**The surest first**: how right are they?")
        chart(figures.risk_coverage(drawn), "risk and coverage")
    names = ("ece", "ece_calibrated", "log_loss", "brier", "selective_accuracy")
    table = _scores(found, names)
    st.dataframe(table, hide_index=True)
    downloads(table, "calibration")


def show_corruption(entries: Sequence[Entry], name: str, titles: Mapping[str, str]) -> None:
    """Error by kind and severity, of the models that were scored on corrupted pictures."""
    wanted = name if name.endswith("-corrupted") else f"{name}-corrupted"
    some = [entry for entry in entries if wanted in entry.evaluation.benchmarks]
    if not some:
        st.info(
            f"None of these models was scored on {wanted}. "
            f"`python -m training evaluate ENTRY --benchmark {wanted} --data ROOT` does it."
        )
        return
    drawn = {}
    for entry in some:
        try:
            table, _ = load(entry, wanted, str(entry.folder), stamp(entry))
        except (EntryError, OSError) as error:
            st.error(f"{titles[entry.id]} is left out: {error}")
            continue
        if is_corrupted(table):
            key = (entry.id, wanted, stamp(entry))
            drawn[titles[entry.id]] = corrupted(table, entry.evaluation.benchmarks[wanted].labels, key)
    chart(figures.corruption(drawn), "corruption")
    rows = []
    for entry in some:
        found = entry.evaluation.benchmarks[wanted].metrics
        row: dict[str, object] = {"model": titles[entry.id]}
        rows.append(
            row | {METRICS[k].title: shared.score_text(k, found[k]) for k in robustness.METRIC_NAMES if k in found}
        )
    table = pd.DataFrame(rows)
    st.dataframe(table, hide_index=True)
    st.caption(
        "Against AlexNet: 1 is as bad as AlexNet in MedMNIST-C's blood pictures (arXiv:2406.17536), 0 is perfect."
    )
    downloads(table, "corruption-scores")
    if drawn:
        downloads(pd.concat([table.assign(model=title) for title, table in drawn.items()]), "corruption-errors")


def show_agreement(found: Sequence[Shown], labels: list[str], name: str) -> None:
    """Every two models tested against each other; where one is right and the other wrong, with pictures."""
    if len(found) < 2:
        st.info("Choose two models above to see where they disagree.")
        return
    tables = {one.title: one.table for one in found}
    try:
        pairs = compared(tables, labels, tuple((one.entry.id, name, stamp(one.entry)) for one in found))
    except ValueError as error:
        st.info(shared.plain(error))
        return
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(
        pairs, hide_index=True, column_config=dict.fromkeys(("difference", "low", "high"), share), key="pairs table"
    )
    st.caption(
        "Difference in accuracy with its paired 95 % interval; source cells that only one calls rightly, with the "
        "exact McNemar test; p adjusted after Holm for the number of pairs."
    )
    downloads(pairs, "pairs")
    by_id = {shown.entry.id: shown for shown in found}
    left, right = st.columns(2)
    one = by_id[left.selectbox("Right", list(by_id), format_func=lambda i: by_id[i].title, key="right")]
    other = by_id[right.selectbox("while wrong", list(by_id), 1, format_func=lambda i: by_id[i].title, key="wrong")]
    rows = significance.only_first_correct(one.table, other.table, labels)
    first, second = shared.plain(one.title), shared.plain(other.title)
    st.markdown(f"**{len(rows):,} images** that {first} gets right and {second} not")
    show_pictures(rows.head(PICTURES), other, name, "agreement")
    if len(rows):
        downloads(rows, f"{one.entry.id}-right-{other.entry.id}-wrong")


def show_curves(entries: Sequence[Entry], titles: Mapping[str, str]) -> None:
    """Training histories overlaid."""
    histories = {titles[entry.id]: read_history(entry) for entry in entries}
    histories = {title: history for title, history in histories.items() if "epoch" in history}
    if not histories:
        st.info("None of these models keeps a training history: classical heads and ensembles have none.")
        return
    columns = [c for c in CURVES if any(c in history for history in histories.values())]
    kind = st.segmented_control(
        "Curve", columns, default=columns[0], required=True, format_func=lambda c: c.replace("_", " "), key="curve"
    )
    chart(figures.training_curves(histories, kind), "training curves")
    downloads(pd.concat([h.assign(model=title) for title, h in histories.items()]), "histories")


def _scores(found: Sequence[Shown], names: Sequence[str]) -> pd.DataFrame:
    """One row a score, one column a model, in words with intervals."""
    rows = []
    for key in names:
        if any(key in one.scores for one in found):
            texts = {one.title: shared.score_text(key, one.scores[key]) if key in one.scores else "–" for one in found}
            rows.append({"score": METRICS[key].title, **texts})
    return pd.DataFrame(rows)


def show_scores(found: Sequence[Shown]) -> None:
    """Accuracy, precision, recall and F1 as bars, and every score in a table."""
    chart(figures.bars({one.title: one.scores for one in found}), "scores")
    table = _scores(found, list(METRICS))
    st.dataframe(table, hide_index=True)
    downloads(table, "scores")


def show_home_and_away(entries: Sequence[Entry]) -> None:
    """Every model's figure at home against that in another laboratory."""
    table = leaderboard.table(entries)
    if table.dropna(subset=["home", "away"]).empty:
        st.info("None of these models was scored both at home and in another laboratory.")
        return
    chart(figures.home_and_away(table), "home and away")
    st.caption("Below the dotted line, a model is worse in a laboratory that it never saw. All models of the zoo.")


shared.page("Compare models")
everything = with_tests(readable_entries(shared.entries()))
if not everything:
    st.info("No model in the zoo keeps test predictions. Train one with `python -m training train`.")
    st.stop()
titles = distinct_titles(list(everything.values()))
current = st.session_state.get(shared.MODEL)
first = [current] if current in everything else []
asked = [identity for identity in st.query_params.get_all("models") if identity in everything]
chosen = st.multiselect(
    "Models",
    list(everything),
    default=asked or list(dict.fromkeys([*first, *leading(list(everything.values()))]))[:FIRST],
    format_func=titles.get,
    key="models",
    help="The address in your browser keeps what you choose here: send it to show others the same view.",
)
if not chosen:
    st.info("Choose at least one model.")
    st.stop()
st.query_params["models"] = chosen  # ids, not titles: a link must live longer than a title
entries = [everything[identity] for identity in chosen]
show_leaderboard(entries)
some = benchmarks_of(entries)
where, how = st.columns([3, 1], gap="large", vertical_alignment="bottom")
wanted = st.query_params.get("benchmark")
name = where.selectbox(
    "Benchmark",
    list(some),
    index=list(some).index(wanted) if wanted in some else 0,
    format_func=lambda key: (
        f"{key}: {some[key][0].evaluation.benchmarks[key].title} ({len(some[key])} of {len(entries)})"
    ),
    key="benchmark",
)
st.query_params["benchmark"] = name
how.segmented_control("Figures download as", ["PNG", "SVG"], default="PNG", required=True, key="figures")
if unused := [key for key in published() if key not in some]:
    st.caption(f"{NOT_SCORED.capitalize()} for any of these models: {', '.join(unused)}.")
found = prepare(some[name], name, titles)
if not found:
    st.stop()
labels = found[0].benchmark.labels
about = found[0].benchmark
missing = [titles[e.id] for e in entries if name not in e.evaluation.benchmarks]
known = published().get(name)
notes = " ".join(about.notes) or (known.note if known else "")
st.caption(
    f"{about.n_images:,} images of {about.n_cells:,} independent cells. {notes} Everything is computed "
    "from stored predictions." + (f" Not scored here: {', '.join(missing)}." if missing else "")
)
show_matrices(found, labels, name)
tabs = st.tabs(list(TABS), key="tab", on_change="rerun", bind="query-params")
draw = [
    lambda: show_classes(found, labels),
    lambda: show_operating(found, labels),
    lambda: show_calibration(found),
    lambda: show_corruption(entries, name, titles),
    lambda: show_agreement(found, labels, name),
    lambda: show_home_and_away(list(everything.values())),
    lambda: show_curves(entries, titles),
    lambda: show_scores(found),
]
for tab, show in zip(tabs, draw, strict=True):
    if tab.open:
        with tab:
            show()
