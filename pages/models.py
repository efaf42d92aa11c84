"""Which models are there, and what is known of each? Cards, scores, sizes and curves; broken ones with the reason."""

from __future__ import annotations

import re
import time

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import shared
from zoo.benchmarks.eligibility import NOT_SCORED, unscored
from zoo.benchmarks.scoring import METRICS
from zoo.entry import AnyEntry, BrokenEntry, Entry, EntryError, read_card, read_history, readable_entries
from zoo.sources import hub
from zoo.sources.catalogue import BUILTIN, distinct_titles, sources
from zoo.sources.runs import list_runs

PICTURE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?")
REFRESH = 3  # seconds between two looks at what is in training


def overview(entries: list[Entry]) -> pd.DataFrame:
    """One row a model."""
    rows = []
    for entry in entries:
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
                "from": place(entry),
                "benchmark": tests[0].title if tests else "",
            }
        )
    return pd.DataFrame(rows)


def place(entry: Entry) -> str:
    """Where an entry is from."""
    if isinstance(entry.origin, hub.Remote):
        return f"Hub: {entry.origin.repo}"
    return "built in" if entry.folder.parent == BUILTIN else str(entry.folder.parent)


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
            table = shared.scores_table(named, METRICS)
            st.dataframe(table, hide_index=True)
            st.download_button("Scores as CSV", shared.csv(table), f"{entry.id}-scores.csv", icon=":material/download:")
        else:
            st.info("This model keeps no evaluation.")
        if missing := unscored(entry):
            st.caption(f"{NOT_SCORED.capitalize()} on {', '.join(missing)}.")
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
        # its pictures lie in its repository; what they show is on the other tabs
        st.markdown(PICTURE.sub("", read_card(entry)) or "This model has no card.")


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
            run.progress,
            f"**{shared.plain(state.title)}** ({shared.plain(run.name)}): epoch {state.epoch} of {state.epochs}, "
            f"{state.images_per_second:,.0f} images a second",
        )
        if "epoch" in run.history:
            with st.expander("Curves so far", expanded=len(found) == 1):
                curves(run.history, run.name)


def places() -> None:
    """How the places on the Hub answer: since when a listing stands, and what is wrong."""
    named = [source.place for source in sources() if isinstance(source, hub.HubSource)]
    waiting = any(hub.status(place).pending for place in named)
    # looks again by itself until there is an answer
    st.fragment(told, run_every=1 if waiting else None)(named, waiting)
    if named and st.button("Ask the Hub again", icon=":material/refresh:"):
        hub.forget()
        shared.renew()
        st.rerun()


def told(named: list[str], waiting: bool) -> None:
    """A line a place. Begins the page anew when the answer that was waited for has come."""
    found = [hub.status(place) for place in named]
    if waiting and not any(state.pending for state in found):
        shared.renew()
        st.rerun()
    for state in found:
        place = shared.plain(hub.PREFIX + state.place)
        since = f"shown as listed {age(state.checked)}" if state.checked else "not listed yet"
        if state.pending:
            st.caption(f":material/cloud_sync: {place} is being asked; {since}.")
        elif state.problem:
            st.warning(f"{shared.plain(state.problem)} {since.capitalize()}.", icon=":material/cloud_off:")
        elif state.checked:
            st.caption(f":material/cloud_done: {place}, listed {age(state.checked)}.")


def age(moment: float) -> str:
    """How long ago, in words."""
    minutes = (time.time() - moment) / 60
    if minutes < 1:
        return "just now"
    if minutes < 120:
        return f"{minutes:.0f} minutes ago"
    return f"on {time.strftime('%Y-%m-%d %H:%M', time.localtime(moment))}"


def choose(entries: list[AnyEntry]) -> list[Entry]:
    """Entries by what is searched for."""
    readable = readable_entries(entries)
    with st.expander("Search and filter", icon=":material/search:"):
        words, tasks, kinds, least, most = st.columns([3, 3, 3, 2, 2])
        text = words.text_input("Words", placeholder="title, id, tag")
        task = tasks.multiselect("Task", sorted({entry.config.zoo.task for entry in readable}))
        kind = kinds.multiselect("Architecture", sorted({entry.config.architecture for entry in readable}))
        score = least.number_input("At home at least, %", 0, 100, 0, 5, help="Balanced accuracy on its own test set.")
        size = most.number_input("At most, MB", 0, None, 0, 5, help="0 for any size.")
    return [
        entry
        for entry in readable
        if all(word in searchable(entry) for word in text.lower().split())
        and (not task or entry.config.zoo.task in task)
        and (not kind or entry.config.architecture in kind)
        and 100 * shared.at(entry, "home") >= score
        and (not size or (entry.weights is not None and entry.weights.bytes <= 1e6 * size))
    ]


def searchable(entry: Entry) -> str:
    """What words are looked for in."""
    labels = " ".join(entry.labels)
    tags = " ".join(entry.origin.commit.tags) if isinstance(entry.origin, hub.Remote) else ""
    words = (entry.id, entry.title, entry.config.zoo.summary, entry.data_set, entry.system, labels, tags)
    return " ".join(words).lower()


def revision(entry: Entry) -> None:
    """Of an entry from the Hub: which commit it is, and others to choose."""
    if not isinstance(entry.origin, hub.Remote):
        return
    told = f"From the Hub: **{shared.plain(entry.origin.repo)}** at commit `{entry.origin.sha[:10]}`"
    pinned = entry.id in st.session_state.get(shared.PINS, {})
    st.caption(told + (", chosen in this session." if pinned else ", where its main stood when it was listed."))
    if not st.toggle("Other revisions", value=pinned, key=f"revisions {entry.id}"):
        return
    try:
        found = hub.revisions(entry)
    except EntryError as error:
        st.warning(shared.plain(error), icon=":material/cloud_off:")
        return
    named = {f"{one.kind} {one.name} {one.about}".strip(): one.sha for one in found}
    listed = next((name for name, sha in named.items() if sha == entry.origin.sha), None)
    picked = st.selectbox("Revision", list(named), index=list(named).index(listed) if listed else 0)
    use, follow = st.columns(2)
    if use.button("Use this revision", disabled=named[picked] == entry.origin.sha, icon=":material/push_pin:"):
        other = hub.entry_at(entry.origin.repo, named[picked])
        if isinstance(other, BrokenEntry):
            st.error(f"There is no model at this revision: {other.reason}")
            return
        shared.pin(entry, named[picked])
        st.rerun()
    if pinned and follow.button("Follow main again", icon=":material/link:"):
        shared.pin(entry, None)
        st.rerun()


shared.page("Models")
in_training()
entries = shared.entries()
places()
table = overview(choose(entries))
if table.empty and readable_entries(entries):
    st.info("No model fits. Take away a filter.")
elif table.empty:
    st.info(
        "The zoo is empty. Train a model with `python -m training train`, or name folders or places on the Hub "
        "(hub:NAMESPACE) in HEMAZOO_ZOO."
    )
else:
    st.dataframe(
        table, hide_index=True, column_config={"parameters": st.column_config.NumberColumn(format="localized")}
    )
    st.download_button("Table as CSV", shared.csv(table), "models.csv", icon=":material/download:")
    good = {entry.id: entry for entry in readable_entries(entries) if entry.id in set(table["id"])}
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
        st.warning(shared.plain(entry.reason))
    st.markdown(shared.describe(entry))
    revision(entry)
    if entry.usable:
        st.page_link("pages/classify.py", label="Classify with this model", icon=":material/biotech:")
    show(entry)
broken = [entry for entry in entries if isinstance(entry, BrokenEntry)]
if broken:
    st.subheader("Broken entries")
    st.caption("These folders are in the zoo's path and cannot be used until mended.")
    rows = [{"id": entry.id, "reason": entry.reason, "folder": str(entry.folder)} for entry in broken]
    st.dataframe(pd.DataFrame(rows), hide_index=True)
