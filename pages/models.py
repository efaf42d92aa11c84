"""Which models are there, and what is known of each? Cards, scores, sizes and curves; broken ones with the reason."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import shared
from zoo.catalogue import distinct_titles
from zoo.entry import Entry, read_card, read_history
from zoo.runs import list_runs
from zoo.scoring import NAMES

REFRESH = 3  # seconds between two looks at what is in training


def overview(entries: list[Entry]) -> pd.DataFrame:
    """One row a model."""
    rows = []
    for entry in entries:
        if entry.config is None:
            continue
        tests = [b for b in entry.evaluation.benchmarks.values() if b.role == "test" and "accuracy" in b.metrics]
        rows.append(
            {
                "model": entry.title,
                "test accuracy": shared.percent(tests[0].metrics["accuracy"]) if tests else "not scored",
                "task": entry.config.zoo.task,
                "classes": len(entry.labels),
                "parameters": entry.weights.parameters if entry.weights else None,
                "size": f"{entry.weights.bytes / 1e6:.1f} MB" if entry.weights else "no weights here",
                "id": entry.id,
                "benchmark": tests[0].title if tests else "",
            }
        )
    return pd.DataFrame(rows)


def curves(history: pd.DataFrame, key: str = "") -> None:
    """Loss and accuracy by epoch."""
    for column, kind in zip(st.columns(2, gap="large"), ("loss", "accuracy"), strict=True):
        figure = go.Figure()
        for side, colour in (("train", shared.MUTED), ("val", shared.ACCENT)):
            if f"{side}_{kind}" in history:
                figure.add_scatter(
                    x=history["epoch"],
                    y=history[f"{side}_{kind}"],
                    name={"train": "training", "val": "validation"}[side],
                    line_color=colour,
                    mode="lines+markers",
                )
        figure.update_layout(
            height=300,
            margin={"l": 0, "r": 0, "t": 30, "b": 0},
            title=kind.capitalize(),
            xaxis={"title": "epoch", "fixedrange": True},
            yaxis={"fixedrange": True, "rangemode": "tozero" if kind == "loss" else "normal"},
            legend={"orientation": "h", "y": -0.25},
        )
        column.plotly_chart(figure, config=shared.CHART, key=f"curve {kind} {key}")


def show(entry: Entry) -> None:
    """One model: scores, curves, card."""
    scored, trained, card = st.tabs(["Scores", "Curves", "Card"])
    with scored:
        named = {b.title: b.metrics for b in entry.evaluation.benchmarks.values()}
        if named:
            table = shared.scores_table(named, NAMES)
            st.dataframe(table, hide_index=True)
            st.download_button("Scores as CSV", shared.csv(table), f"{entry.id}-scores.csv", icon=":material/download:")
        else:
            st.info("This model keeps no evaluation.")
    with trained:
        history = read_history(entry)
        if "epoch" in history:
            curves(history)
            st.download_button(
                "Curves as CSV", shared.csv(history), f"{entry.id}-history.csv", icon=":material/download:"
            )
        else:
            st.info("This model keeps no training history.")
    with card:
        st.markdown(read_card(entry) or "This model has no card.")


@st.fragment(run_every=REFRESH)
def in_training() -> None:
    """Runs that are going on, with their curves, renewed by itself."""
    found = [run for run in list_runs() if run.alive]
    if not found:
        return
    st.subheader("In training")
    for run in found:
        state = run.state
        st.progress(
            run.share,
            f"**{shared.plain(state.title)}** ({shared.plain(run.name)}): epoch {state.epoch} of {state.epochs}, "
            f"{state.images_per_second:,.0f} images a second",
        )
        if "epoch" in run.history:
            with st.expander("Curves so far", expanded=len(found) == 1):
                curves(run.history, run.name)


shared.page("Models")
in_training()
entries = shared.entries()
table = overview(entries)
if table.empty:
    st.info("The zoo is empty. Train a model with `python -m training train`, or name folders in HEMAZOO_ZOO.")
else:
    st.dataframe(
        table, hide_index=True, column_config={"parameters": st.column_config.NumberColumn(format="localized")}
    )
    st.download_button("Table as CSV", shared.csv(table), "models.csv", icon=":material/download:")
    good = {entry.id: entry for entry in entries if entry.ok}
    current = st.session_state.get(shared.MODEL)
    picked = st.selectbox(
        "Look at",
        list(good),
        index=list(good).index(current) if current in good else 0,
        format_func=distinct_titles(list(good.values())).get,
    )
    entry = good[picked]
    if entry.usable:
        st.session_state[shared.MODEL] = picked
    else:
        st.warning(entry.reason)
    st.markdown(shared.describe(entry))
    if entry.usable:
        st.page_link("pages/classify.py", label="Classify with this model", icon=":material/biotech:")
    show(entry)
broken = [entry for entry in entries if not entry.ok]
if broken:
    st.subheader("Broken entries")
    st.caption("These folders are in the zoo's path and cannot be used until mended.")
    rows = [{"id": entry.id, "reason": entry.reason, "folder": str(entry.folder)} for entry in broken]
    st.dataframe(pd.DataFrame(rows), hide_index=True)
