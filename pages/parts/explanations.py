"""Options of explanation maps, and maps computed once a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st
from PIL import Image

from pages.parts import session
from pages.parts.session import Picture
from zoo.api import default_runtime
from zoo.attribution import METHODS, ExplanationError
from zoo.attribution.faithfulness import Faithfulness
from zoo.attribution.overlay import COLOURS, contours, overlay
from zoo.entry import Entry, EntryError
from zoo.serving.requests import Ticket
from zoo.serving.runtime import BusyError, Explanation, methods_for

EXPLANATIONS, FAITHFULNESS = "explanations", "faithfulness"  # session keys
MAX_KEPT = 96  # maps of a session, and measurements of these
PREDICTED, ALL_OTHERS, USUAL = "the predicted class", "all other classes", "the model's usual layer"  # choices
HEAT, LINES = "heat", "lines"
FAILURES = (EntryError, ExplanationError, BusyError)


@dataclass(frozen=True)
class MapOptions:
    """Options for computing and drawing maps.

    Attributes:
        label: Class that the evidence is for; None for the predicted one.
        against: Class that it is contrasted with; None for all others.
        method: Name in `METHODS`.
        layer: Layer of the network; None for the usual one.
        style: HEAT or LINES.
        colours: Name of the colour map.
        opacity: Opacity of the strongest evidence, 0..1.
    """

    label: str | None
    against: str | None
    method: str
    layer: str | None
    style: str
    colours: str
    opacity: float

    def draw(self, image: Image.Image, explanation: Explanation) -> Image.Image:
        """The picture with the map on it."""
        if self.style == LINES:
            return contours(image, explanation.values, self.colours)
        return overlay(image, explanation.values, self.opacity, self.colours)


def pick_options(first: Entry, second: Entry | None) -> MapOptions:
    """Choose the class, the method and how maps are drawn."""
    left, middle, right = st.columns(3)
    classes = list(dict.fromkeys([*first.labels, *(second.labels if second else [])]))
    label = left.selectbox("Evidence for", [PREDICTED, *classes])
    against = middle.selectbox("rather than", [ALL_OTHERS, *classes], help="Shows what distinguishes the two classes.")
    names = methods_for(first)
    method = right.selectbox(
        "Method",
        names,
        format_func=lambda name: METHODS[name].title,
        help="\n".join(f"- **{METHODS[name].title}**: {METHODS[name].about}" for name in names),
    )
    with st.expander("More: layer, colours, opacity", icon=":material/tune:"):
        columns = st.columns(4)
        layers = [USUAL, *_layers(first)]
        layer = columns[0].selectbox(
            "Layer", layers, disabled=len(layers) == 1, help="Early layers have finer detail, but less meaning."
        )
        style = columns[1].segmented_control("Drawn as", (HEAT, LINES), default=HEAT, required=True)
        colours = columns[2].selectbox("Colours", COLOURS, help="Viridis suits colour-blind readers.")
        opacity = columns[3].slider("Opacity", 0.0, 1.0, 0.5, 0.05)
    return MapOptions(
        None if label == PREDICTED else label,
        None if against == ALL_OTHERS else against,
        method,
        None if layer == USUAL else layer,
        style,
        colours,
        opacity,
    )


def explain(entry: Entry, picture: Picture, image: Image.Image, options: MapOptions, method: str | None) -> Explanation:
    """The map of one picture, computed once a session; slow methods show their progress.

    Args:
        entry: The model.
        picture: The picture, which names the result in the cache.
        image: The decoded picture.
        options: Class, contrast and layer, where the model has them.
        method: Name in `METHODS`; None for the model's usual one.

    Raises:
        EntryError, ExplanationError, BusyError: If there is no map.
    """
    known = st.session_state.setdefault(EXPLANATIONS, {})
    label = options.label if options.label in entry.labels else None
    against = options.against if options.against in entry.labels and options.against != label else None
    layer = options.layer if not entry.members else None
    key = (entry.folder, entry.weights, picture.id, label, against, method, layer)
    if key not in known:
        bar = st.empty()

        def show_progress(ticket: Ticket) -> None:
            bar.progress(ticket.progress, session.progress_text(ticket))

        try:
            explanation = default_runtime().explain(
                entry, image, label, method, against, layer, session.client(), show_progress
            )
        finally:
            bar.empty()
        _keep(known, key, explanation)
    return known[key]


def faithfulness(entry: Entry, picture: Picture, explanation: Explanation, layer: str | None) -> Faithfulness | None:
    """Faithfulness of a map, measured once a session; None for ensembles."""
    if entry.members:
        return None
    known = st.session_state.setdefault(FAITHFULNESS, {})
    made = (explanation.label, explanation.against, explanation.method)
    key = (entry.folder, entry.weights, picture.id, *made, layer)
    if key not in known:
        _keep(known, key, default_runtime().measure_faithfulness(entry, explanation, session.client()))
    return known[key]


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    """Keep a result; the oldest ones make room."""
    while len(known) >= MAX_KEPT:
        known.pop(next(iter(known)))
    known[key] = value


@st.cache_data(max_entries=64, show_spinner="Loading the model …")
def _layers_of(identity: str, folder: str, _entry: Entry) -> list[str]:
    return default_runtime().layers(_entry)


def _layers(entry: Entry) -> list[str]:
    """Layers of an entry that can be chosen; none if it cannot be loaded, which the map reports."""
    try:
        return _layers_of(entry.id, str(entry.folder), entry)
    except FAILURES:
        return []
