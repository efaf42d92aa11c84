"""Options of explanation maps, and maps computed once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st
from PIL import Image

from pages.parts import progress, samples, session
from pages.parts.session import Picture
from zoo.api import default_runtime
from zoo.attribution import METHODS, ExplanationError
from zoo.attribution.faithfulness import Faithfulness
from zoo.attribution.overlay import COLOURS, contours, overlay
from zoo.bounded import ByteCache
from zoo.entry import Entry, EntryError
from zoo.limits import MAPS_MB
from zoo.scores.sample.samples import ALIKE, Sample
from zoo.scores.sample.samples import samples as known_samples
from zoo.serving.requests import Ticket
from zoo.serving.results import Explanation, Prediction, with_sample
from zoo.serving.runtime import BusyError, methods_for

EXPLANATIONS, FAITHFULNESS, ANSWERS = "explanations", "faithfulness", "explained answers"  # session keys
STOPPED = "stopped maps"  # session key: the maps that the visitor stopped
MAX_KEPT = 96  # answers and measurements of a session
# choices
PREDICTED, NETWORK = "the predicted class", "the class that the network alone says"
ALL_OTHERS, USUAL = "all other classes", "the model's usual layer"
HEAT, LINES = "heat", "lines"
FAILURES = (EntryError, ExplanationError, BusyError)


class StoppedMap(ExplanationError):
    """The visitor stopped the computation of this map."""


@dataclass(frozen=True)
class MapOptions:
    """Options for computing and drawing maps.

    Attributes:
        label: Class that the evidence is for; PREDICTED for the answer with the sample, NETWORK for the network's own.
        against: Class that it is contrasted with; None for all others.
        method: Name in `METHODS`.
        layer: Layer of the network; None for the usual one.
        style: HEAT or LINES.
        colours: Name of the colour map.
        opacity: Opacity of the strongest evidence, 0..1.
    """

    label: str
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
    written = (second.class_names if second else {}) | first.class_names
    label = left.selectbox(
        "Evidence for",
        [PREDICTED, NETWORK, *classes],
        format_func=lambda label: written.get(label, label),
        help="A map shows the evidence for the network's score of a class. The predicted class is the one with the "
        "sample; the network alone may say another.",
    )
    against = middle.selectbox(
        "rather than",
        [ALL_OTHERS, *classes],
        format_func=lambda label: written.get(label, label),
        help="Shows what distinguishes the two classes.",
    )
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
        label,
        None if against == ALL_OTHERS else against,
        method,
        None if layer == USUAL else layer,
        style,
        colours,
        opacity,
    )


def map_key(entry: Entry, picture: Picture, options: MapOptions, method: str | None) -> tuple[object, ...]:
    """Everything that the visitor asked for: a stopped map is known by it."""
    return (entry.folder, entry.weights, picture.id, options.label, options.against, method, options.layer)


def stop(unfinished: Iterable[tuple[object, ...]]) -> None:
    """Do not compute maps, by their `map_key`, until the visitor goes on."""
    st.session_state[STOPPED] = {*st.session_state.get(STOPPED, ()), *unfinished}


def offer_to_go_on(key: str) -> None:
    """Offer to compute the maps that were stopped."""
    st.button("Go on", icon=":material/play_arrow:", key=key, on_click=st.session_state.pop, args=(STOPPED, None))


def explain(
    entry: Entry,
    picture: Picture,
    image: Image.Image,
    options: MapOptions,
    method: str | None,
    watch: Callable[[Ticket], None] | None = None,
) -> Explanation:
    """The map of one picture, computed once a session; slow methods show their progress and can be stopped.

    Args:
        entry: The model.
        picture: The picture, which names the result in the cache.
        image: The decoded picture.
        options: Class, contrast and layer, where the model has them.
        method: Name in `METHODS`; None for the model's usual one.
        watch: Called with the ticket several times a second, where the caller shows the progress.

    Raises:
        StoppedMap: If the visitor stopped it.
        EntryError, ExplanationError, BusyError: If there is no map.
    """
    sample = samples.sample_for(entry)
    if EXPLANATIONS not in st.session_state:
        st.session_state[EXPLANATIONS] = ByteCache(lambda: MAPS_MB.bytes, lambda one: one.values.nbytes)
    known: ByteCache[Explanation] = st.session_state[EXPLANATIONS]
    against = options.against if options.against in entry.labels and options.against != options.label else None
    layer = options.layer if not entry.members else None
    # the sample moves the answer, and with it which class is explained, but no class's map
    made = (entry.folder, entry.weights, picture.id)
    label = _explained(entry, options.label, st.session_state.setdefault(ANSWERS, {}).get(made), sample)
    key = (*made, label, against, method, layer)
    explanation = known.get(key) if label is not None else None
    if explanation is None:
        wanted = map_key(entry, picture, options, method)
        if wanted in st.session_state.get(STOPPED, ()):
            raise StoppedMap("Stopped.")
        asked = known_samples()[ALIKE] if options.label == NETWORK else sample
        with progress.long_work(f"stop {entry.id} {picture.id} {method}", stop, [wanted]) as work:
            text = METHODS[method].title if method else "Computing the map"
            follow = watch or partial(work.follow, text=text)
            explanation = default_runtime().explain(
                entry, image, label, method, against, layer, session.client(), follow, asked
            )
        _keep(st.session_state[ANSWERS], made, explanation.prediction)
        key = (*made, explanation.label, against, method, layer)
        known.put(key, explanation)
    return replace(explanation, prediction=with_sample(entry, explanation.prediction, sample))


def _explained(entry: Entry, choice: str, answer: Prediction | None, sample: Sample) -> str | None:
    """Class that a choice of "Evidence for" means; None where the picture must be classified to know."""
    if choice in entry.labels:
        return choice
    if answer is None:
        return None
    return answer.network_label if choice == NETWORK else with_sample(entry, answer, sample).label


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
