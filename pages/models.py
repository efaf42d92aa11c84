"""Models page: scores, training curves and cards of all entries, runs in training, and broken entries with reasons."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import streamlit as st
from streamlit import runtime
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.runtime import RuntimeState

from pages.parts import detectors, layout, pickers, plots, session, tables, wording
from pages.parts import entries as zoo_entries
from pages.parts.wording import plain
from zoo.benchmarks import benchmark_title, leaderboard, published
from zoo.benchmarks.comparison import leaderboard_value, ranked_ids
from zoo.benchmarks.eligibility import NOT_SCORED, unscored
from zoo.benchmarks.leaderboard import COLUMNS, home_benchmark, images_per_second
from zoo.benchmarks.scoring import METRICS
from zoo.entry import AnyEntry, Benchmark, BrokenEntry, Entry, EntryError, read_card, read_history, readable_entries
from zoo.figures.history import training_and_validation
from zoo.lazy import lazy_module
from zoo.sources import HUB_PREFIX, hub
from zoo.sources.catalogue import BUILTIN, MODEL, distinct_titles, sources
from zoo.sources.runs import Run, list_runs

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

RUNS_REFRESH_SECONDS = 3
HUB_REFRESH_SECONDS = 0.3  # also until a visitor's click is noticed
MAX_AGE_IN_MINUTES = 120  # older listings are shown with their date
MAIN_SCORES = ("balanced_accuracy", "accuracy", "macro_f1")  # of a row; the others stand in a fold
QUANTITIES: tuple[Literal["loss", "accuracy"], ...] = ("loss", "accuracy")


def overview(entries: list[Entry]) -> pd.DataFrame:
    """One row a model: ours, then published systems, the best in other laboratories first."""
    rows, order = [], ranked_ids(entries)
    for entry in sorted(entries, key=lambda entry: (not entry.usable, entry.system, order.index(entry.id))):
        home = home_benchmark(entry) or ""
        tested = entry.evaluation.benchmarks.get(home)
        rows.append(
            {
                "model": f"{entry.title} (default)" if entry.id == MODEL else entry.title,
                "other labs": wording.other_laboratories(entry),
                "at home": wording.at_home(entry, interval=True),
                "task": entry.config.zoo.task,
                "classes": len(entry.labels),
                "parameters": entry.weights.parameters if entry.weights else None,
                "size in MB": round(entry.weights.bytes / 1e6, 1) if entry.weights else None,
                "images/s": images_per_second(entry),
                "id": entry.id,
                "from": source_of(entry) + ("" if entry.weights else ", without weights"),
                "benchmark": benchmark_title(home, tested) if tested else "",
            }
        )
    return pd.DataFrame(rows)


def source_of(entry: Entry) -> str:
    """Origin of an entry, in words."""
    if isinstance(entry.origin, hub.Remote):
        return f"Hub: {entry.origin.repo}"
    return "built in" if entry.folder.parent == BUILTIN else str(entry.folder.parent)


def show_curves(history: pd.DataFrame, key: str = "") -> None:
    """Show loss and accuracy by epoch."""
    for column, quantity in zip(st.columns(2, gap="large"), QUANTITIES, strict=True):
        with column:
            plots.chart(training_and_validation(history, quantity), f"curve {quantity} {key}")


def show_entry(entry: Entry) -> None:
    """Show one model: scores, curves and card."""
    scores, curves, card = st.tabs(["Scores", "Curves", "Card"])
    with scores:
        show_scores(entry)
    with curves:
        history = read_history(entry)
        if "epoch" in history:
            show_curves(history)
            tables.csv_button("Curves as CSV", history, f"{entry.id}-history.csv")
        else:
            st.info("This model has no training history.")
    with card:
        st.markdown(wording.card(read_card(entry)) or "This model has no card.")


def show_scores(entry: Entry) -> None:
    """Show a row a test set, and every score in a fold."""
    benchmarks = entry.evaluation.benchmarks
    table = wording.scores_table({_asked_title(name, b): b.metrics for name, b in benchmarks.items()})
    if table.empty:
        st.info("This model is not scored.")
    else:
        rows = [
            {"pictures": _asked_title(test, b), "number": b.n_images}
            | {
                METRICS[name].title: wording.score_text(name, b.metrics[name])
                for name in MAIN_SCORES
                if name in b.metrics
            }
            for test, b in benchmarks.items()
        ]
        number = st.column_config.NumberColumn(format="localized")
        st.dataframe(pd.DataFrame(rows), hide_index=True, column_config={"number": number})
        with st.expander("All scores", icon=":material/table_rows:"):
            st.dataframe(table, hide_index=True)
            tables.csv_button("Scores as CSV", table, f"{entry.id}-scores.csv")
    if missing := unscored(entry):
        titles = "; ".join(definition.title for name, definition in published().items() if name in missing)
        st.caption(f"{NOT_SCORED.capitalize()} on {titles}.")
    with st.expander("Sample", icon=":material/bloodtype:"):
        show_sample(entry)


def show_summary(entry: Entry) -> None:
    """Show what a model is for and how good, quick and large it is; the rest in a fold."""
    st.markdown(plain(entry.config.zoo.summary))
    away, rate = leaderboard.other_laboratories(entry), images_per_second(entry)
    figures = {
        "At home": wording.at_home(entry),
        "Other laboratories": f"{100 * away.mean.value:.1f} %" if away else NOT_SCORED,
        "Worst of them": f"{100 * away.worst.score.value:.1f} %" if away else NOT_SCORED,
        "Images a second": f"{rate:,.0f}" if rate else NOT_SCORED,
        "Size": f"{entry.weights.bytes / 1e6:.1f} MB" if entry.weights else "no weights here",
    }
    with st.container(horizontal=True, gap="large"):
        for name, value in figures.items():
            st.metric(name, value, width="content")
    with st.expander("Where these figures come from", icon=":material/info:"):
        st.markdown(wording.description(entry))


def show_sample(entry: Entry) -> None:
    """Show the sample that a model is asked with by default, and the shares of classes it was trained with."""
    trained, names = entry.trained_prior, entry.class_names
    st.markdown(f"Asked by default with: **{plain(entry.default_sample.name)}**.")
    st.caption(f"Shares in training: {plain(trained.source)}.")
    shares = {names[label]: share for label, share in zip(entry.labels, trained.shares, strict=True)}
    asked = entry.prior_of(entry.default_sample)
    rows = pd.DataFrame({"class": list(shares), "in training": list(shares.values()), "expected in the sample": asked})
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(rows, hide_index=True, column_config={"in training": share, "expected in the sample": share})


def _asked_title(name: str, benchmark: Benchmark) -> str:
    """A benchmark's title with the sample that it was asked with, where that is stated."""
    title = benchmark_title(name, benchmark)
    return f"{title} ({benchmark.sample})" if benchmark.sample else title


@dataclass(eq=False)
class ShownRun:
    """Places of a run on the page, and the epochs whose curves are drawn."""

    line: DeltaGenerator
    curves: DeltaGenerator
    epochs: int = 0


def show_runs() -> dict[str, ShownRun]:
    """Show runs in training with their curves; returns their places by name."""
    runs = [run for run in list_runs() if run.alive]
    if runs:
        st.subheader("In training")
    shown = {}
    for run in runs:
        shown[run.name] = ShownRun(st.empty(), st.empty())
        show_run(shown[run.name], run, expanded=len(runs) == 1)
    return shown


def show_run(place: ShownRun, run: Run, expanded: bool) -> None:
    """Show the progress of a run, and its curves where an epoch has ended."""
    state = run.state
    place.line.progress(
        run.progress,
        f"**{plain(state.title)}** ({plain(run.name)}): epoch {state.epoch} of {state.epochs}, "
        f"{state.images_per_second:,.0f} images per second",
    )
    if "epoch" in run.history and len(run.history) > place.epochs:
        place.epochs = len(run.history)
        with place.curves.container(), st.expander("Curves so far", expanded=expanded):
            show_curves(run.history, f"{run.name} {place.epochs}")


def show_hub_status() -> None:
    """Show when each place on the Hub was listed, and what is wrong."""
    places = _hub_places()
    for place in places:
        _hub_line(hub.status(place))
    if places and st.button("Refresh from the Hub", icon=":material/refresh:"):
        hub.forget()
        zoo_entries.refresh()
        st.rerun()


def wait_for_news(shown: dict[str, ShownRun]) -> None:
    """Renew the runs in training; run the page again when one begins or ends, or when the Hub has answered.

    This is the end of the page's own run. A part that renews itself (`run_every`) may answer after the visitor has gone
    to another page, and leave it empty.
    """
    waiting = [place for place in _hub_places() if hub.status(place).pending]
    # without a browser nobody looks on
    connected = runtime.get_instance().state == RuntimeState.ONE_OR_MORE_SESSIONS_CONNECTED
    follows = bool(shown) and connected
    heartbeat, renewed = st.empty(), time.monotonic()
    while follows or any(hub.status(place).pending for place in waiting):
        time.sleep(HUB_REFRESH_SECONDS)
        heartbeat.empty()  # Streamlit ends this run here if the visitor has done something
        if waiting and not any(hub.status(place).pending for place in waiting):
            break
        if follows and time.monotonic() - renewed > RUNS_REFRESH_SECONDS:
            renewed = time.monotonic()
            runs = [run for run in list_runs() if run.alive]
            if {run.name for run in runs} != set(shown):
                st.rerun()
            for run in runs:
                show_run(shown[run.name], run, expanded=len(runs) == 1)
    if waiting:
        zoo_entries.refresh()
        st.rerun()


def _hub_places() -> list[str]:
    return [source.place for source in sources() if isinstance(source, hub.HubSource)]


def _hub_line(state: hub.Status) -> None:
    place = plain(HUB_PREFIX + state.place)
    since = f"listed {age(state.checked)}" if state.checked else "not listed yet"
    if state.pending:
        st.caption(f":material/cloud_sync: Listing {place} …; {since}.")
    elif state.problem:
        st.warning(
            f"{plain(state.problem)} Last {since}." if state.checked else plain(state.problem),
            icon=":material/cloud_off:",
        )
    elif state.checked:
        st.caption(f":material/cloud_done: {place}: {since}.")


def age(moment: float) -> str:
    """Age of a time (seconds since 1970), in words."""
    minutes = (time.time() - moment) / 60
    if minutes < 1:
        return "just now"
    if minutes < MAX_AGE_IN_MINUTES:
        return f"{minutes:.0f} minutes ago"
    return f"on {time.strftime('%Y-%m-%d %H:%M', time.localtime(moment))}"


def filtered(entries: list[AnyEntry]) -> list[Entry]:
    """Readable entries that match the search and filters."""
    readable = readable_entries(entries)
    with st.expander("Search and filter", icon=":material/search:"):
        words, tasks, architectures = st.columns(3)
        accuracy, elsewhere, megabytes, rate = st.columns(4, vertical_alignment="bottom")
        text = words.text_input("Words", placeholder="title, id, tag")
        task = tasks.multiselect("Task", sorted({entry.config.zoo.task for entry in readable}))
        architecture = architectures.multiselect(
            "Architecture", sorted({entry.config.architecture for entry in readable})
        )
        min_accuracy = accuracy.number_input("Accuracy at least, %", 0, 100, 0, 5, help="Balanced, home laboratory.")
        min_elsewhere = elsewhere.number_input(
            "Other laboratories at least, %", 0, 100, 0, 5, help=COLUMNS["away"].help
        )
        max_size = megabytes.number_input("Size at most, MB", 0, None, 0, 5, help="0 for any size.")
        min_rate = rate.number_input("Images a second at least", 0, None, 0, 50, help="On two processor cores.")
    return [
        entry
        for entry in readable
        if all(word in searchable_text(entry) for word in text.lower().split())
        and (not task or entry.config.zoo.task in task)
        and (not architecture or entry.config.architecture in architecture)
        and 100 * leaderboard_value(entry, "home") >= min_accuracy
        and 100 * leaderboard_value(entry, "away") >= min_elsewhere
        and (images_per_second(entry) or 0) >= min_rate
        and (not max_size or (entry.weights is not None and entry.weights.bytes <= 1e6 * max_size))
    ]


def searchable_text(entry: Entry) -> str:
    """Text of an entry that a search looks through."""
    tags = entry.origin.commit.tags if isinstance(entry.origin, hub.Remote) else ()
    words = (entry.id, entry.title, entry.config.zoo.summary, entry.data_set, entry.system, *entry.labels, *tags)
    return " ".join(words).lower()


def choose_revision(entry: Entry) -> None:
    """Show the commit of an entry from the Hub, and offer others."""
    if not isinstance(entry.origin, hub.Remote):
        return
    pinned = entry.id in session.pins()
    how = "chosen in this session" if pinned else "latest when listed"
    st.caption(f"From the Hub: **{plain(entry.origin.repo)}** at commit `{entry.origin.sha[:10]}`, {how}.")
    if not st.toggle("Other revisions", value=pinned, key=f"revisions {entry.id}"):
        return
    try:
        revisions = hub.revisions(entry)
    except EntryError as error:
        st.warning(plain(error), icon=":material/cloud_off:")
        return
    shas = {f"{one.kind} {one.name} {one.about}".strip(): one.sha for one in revisions}
    current = next((name for name, sha in shas.items() if sha == entry.origin.sha), None)
    chosen = st.selectbox("Revision", list(shas), index=list(shas).index(current) if current else 0)
    use, follow = st.columns(2)
    if use.button("Use this revision", disabled=shas[chosen] == entry.origin.sha, icon=":material/push_pin:"):
        other = hub.entry_at(entry.origin.repo, shas[chosen])
        if isinstance(other, BrokenEntry):
            st.error(f"This revision holds no model: {other.reason}")
            return
        session.pin(entry, shas[chosen])
        st.rerun()
    if pinned and follow.button("Follow main again", icon=":material/link:"):
        session.pin(entry, None)
        st.rerun()


def about_default(entries: list[AnyEntry]) -> str:
    """A sentence on the model that is used where none is chosen; empty where it is not listed."""
    listed = {entry.id: entry for entry in readable_entries(entries)}
    if MODEL not in listed:
        return ""
    default = listed[MODEL]
    away = {name: leaderboard_value(entry, "away") for name, entry in listed.items() if entry.labels == default.labels}
    why = f": of the models with {len(default.labels)} classes it is best in other laboratories"
    return f"Default: **{plain(default.title)}**{why if away[MODEL] == max(away.values()) else ''}."


def show_list(entries: list[AnyEntry]) -> None:
    """Show the table of models, and the chosen one below it."""
    table = overview(filtered(entries))
    if table.empty and readable_entries(entries):
        st.info("No model matches. Remove a filter.")
        return
    if table.empty:
        st.info(
            "The zoo is empty. Train a model with `python -m training train`, or name folders or places on the Hub "
            "(hub:NAMESPACE) in HEMAZOO_ZOO."
        )
        return
    st.markdown(f"{about_default(entries)} Click a row to see the model.".strip())
    parameters = st.column_config.NumberColumn("parameters", format="localized")
    size = st.column_config.NumberColumn("size", format="%.1f MB", help="Of the weights.")
    rate = st.column_config.NumberColumn("images/s", format="%.0f", help="On two processor cores.")
    key = f"models {len(table)}"

    def choose() -> None:
        for row in tables.selected_rows(key):
            session.choose_model(str(table["id"].iloc[row]))

    st.dataframe(
        table,
        hide_index=True,
        key=key,
        on_select=choose,
        selection_mode=tables.ONE_ROW,
        column_config={"parameters": parameters, "images/s": rate, "size in MB": size},
    )
    tables.csv_button("Table as CSV", table, "models.csv")
    ids = set(table["id"])
    listed = [entry for entry in readable_entries(entries) if entry.id in ids]
    entry = pickers.select_entry("Model", listed, distinct_titles(listed))
    if entry.usable:
        session.choose_model(entry.id)
    else:
        st.warning(plain(entry.reason))
    if entry.usable:
        st.page_link("pages/classify.py", label="Classify with this model", icon=":material/biotech:")
    show_summary(entry)
    choose_revision(entry)
    show_entry(entry)


def show_broken(entries: list[AnyEntry]) -> None:
    """List entries that cannot be read, with the reasons."""
    broken = [entry for entry in entries if isinstance(entry, BrokenEntry)]
    if not broken:
        return
    st.subheader("Broken entries", help="Folders and places named in HEMAZOO_ZOO that hold no readable model.")
    rows = [{"id": entry.id, "reason": entry.reason, "folder": str(entry.folder)} for entry in broken]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


layout.page("Models")
runs_shown = show_runs()
entries = zoo_entries.entries()
show_hub_status()
show_list(entries)
detectors.show_detectors()
show_broken(entries)
wait_for_news(runs_shown)
