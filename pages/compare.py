"""Compare page: models side by side, computed from stored predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from pages.parts import detectors, layout, plots, session
from pages.parts import entries as zoo_entries
from pages.parts.comparison import scored, tabs
from pages.parts.comparison.matrices import show_matrices
from pages.parts.wording import plain
from zoo.benchmarks import benchmark_title, published
from zoo.benchmarks.comparison import benchmarks_of, sample_names, tested, varied_ids
from zoo.benchmarks.eligibility import NOT_SCORED
from zoo.entry import Entry, readable_entries
from zoo.sources.catalogue import distinct_titles


def pick_models(models: Mapping[str, Entry], titles: Mapping[str, str]) -> list[Entry]:
    """Choose the models; the choice is kept in the page's address. Stops the page if none is chosen."""
    from_address = [identity for identity in st.query_params.get_all("models") if identity in models]
    chosen = st.multiselect(
        "Models",
        list(models),
        default=from_address or varied_ids(list(models.values()), session.current_model()),
        format_func=lambda identity: titles[identity],
        key="models",
        help="The page's address keeps your choice: send it to show others the same view.",
    )
    if not chosen:
        st.info("Choose at least one model.")
        st.stop()
    st.query_params["models"] = chosen  # ids, because titles may change
    return [models[identity] for identity in chosen]


def pick_benchmark(entries: Sequence[Entry]) -> tuple[str, list[Entry]]:
    """Choose a benchmark, kept in the page's address; returns its name and the models that were scored on it."""
    benchmarks = benchmarks_of(entries)
    left, right = st.columns([3, 1], gap="large", vertical_alignment="bottom")
    from_address = st.query_params.get("benchmark")

    def title(name: str) -> str:
        models = benchmarks[name]
        known = "" if len(models) == len(entries) else f" ({len(models)} of {len(entries)} models)"
        return f"{benchmark_title(name, models[0].evaluation.benchmarks[name])}{known}"

    name = left.selectbox(
        "Test pictures",
        list(benchmarks),
        index=list(benchmarks).index(from_address) if from_address in benchmarks else 0,
        format_func=title,
        key="benchmark",
    )
    st.query_params["benchmark"] = name
    if unused := [one.title for key, one in published().items() if key not in benchmarks]:
        st.caption(f"These models are {NOT_SCORED} on {len(unused)} more benchmarks.", help=f"{'; '.join(unused)}.")
    right.segmented_control("Download figures as", ["PNG", "SVG"], default="PNG", required=True, key=plots.FORMAT)
    return name, benchmarks[name]


def pick_sample(entries: Sequence[Entry], name: str) -> str:
    """Choose the sample to ask with, kept in the page's address; empty for the one that is reported."""
    choices = scored.sample_choices(entries, name)
    if not choices:
        return ""
    reported = {entry.evaluation.benchmarks[name].sample or "not stated" for entry in entries}
    as_reported = f"As reported: {reported.pop()}" if len(reported) == 1 else "As reported, which differs by model"
    from_address = st.query_params.get("sample")
    options = ["", *choices]
    chosen = st.selectbox(
        "Sample",
        options,
        index=options.index(from_address) if from_address in options else 0,
        format_func=lambda option: option[:1].upper() + option[1:] or as_reported,
        key=f"sample {name}",
        help="Which kinds of cells to expect. Answers are made again from the networks' stored probabilities.",
    )
    if chosen:
        st.query_params["sample"] = chosen
    elif "sample" in st.query_params:
        del st.query_params["sample"]
    return chosen


def describe_benchmark(name: str, models: Sequence[scored.ScoredModel], not_scored: Sequence[str]) -> None:
    """Show the size of a benchmark, notes about it, and the chosen models that were not scored on it."""
    benchmark, definition = models[0].benchmark, published().get(name)
    sample = models[0].sample or sample_names([model.entry for model in models], name)
    asked = f" Sample: {plain(sample)}."
    shown, detail = ("", asked) if "; " in sample else (asked, "")
    notes = " ".join(benchmark.notes) or (definition.note if definition else "")
    st.caption(
        f"{benchmark.n_images:,} images of {benchmark.n_cells:,} independent cells."
        + shown
        + (f" Not scored: {', '.join(plain(title) for title in not_scored)}." if not_scored else ""),
        help=f"{plain(notes)}{detail} All figures are computed from stored predictions.".strip(),
    )


def show_tabs(shows: Mapping[str, Callable[[], None]]) -> None:
    """Show tabs by title; only the open one is computed."""
    containers = st.tabs(list(shows), key="tab", on_change="rerun", bind="query-params")
    for container, show in zip(containers, shows.values(), strict=True):
        if container.open:
            with container:
                show()


layout.page("Compare models")
everything = tested(readable_entries(zoo_entries.entries()))
if not everything:
    st.info("No model has test predictions. Train one with `python -m training train`.")
    st.stop()
titles = distinct_titles(list(everything.values()))
entries = pick_models(everything, titles)
tabs.show_leaderboard(entries)
name, scored_entries = pick_benchmark(entries)
models = scored.load_models(scored_entries, name, titles, pick_sample(scored_entries, name))
if not models:
    st.stop()
labels = models[0].benchmark.labels
describe_benchmark(name, models, [titles[e.id] for e in entries if name not in e.evaluation.benchmarks])
show_matrices(models, labels)
show_tabs(
    {
        "Class by class": lambda: tabs.show_classes(models),
        "ROC and PR": lambda: tabs.show_operating_curves(models, labels),
        "Calibration": lambda: tabs.show_calibration(models),
        "Corruption": lambda: tabs.show_corruption(entries, name, titles),
        "Agreement": lambda: tabs.show_agreement(models, labels),
        "Other laboratories": lambda: tabs.show_other_laboratories(list(everything.values())),
        "Training curves": lambda: tabs.show_training_curves(entries, titles),
        "All scores": lambda: tabs.show_scores(models),
    }
)
detectors.show_comparison()
