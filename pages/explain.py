"""Why this class? Maps of evidence beside the picture, by many methods, with what they are worth."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from PIL import Image
from plotly.subplots import make_subplots

from pages import shared
from zoo.api import default_runtime
from zoo.attribution import METHODS, ExplanationError
from zoo.attribution.faithfulness import Faithfulness
from zoo.attribution.overlay import COLOURS, PARTS, contours, overlay, parts, scale_bar
from zoo.benchmarks import find_source
from zoo.data.configured import places
from zoo.entry import Entry, EntryError, is_on_frames
from zoo.figures.sheet import Panel, sheet
from zoo.imaging.decode import ImageError
from zoo.serving.requests import Ticket
from zoo.serving.runtime import BusyError, Explanation, methods_for
from zoo.sources.catalogue import distinct_titles

EXPLANATIONS, JUDGED = "explanations", "judged maps"  # keys of what a session keeps: maps, and their faithfulness
SHOWN_FIRST = 3
KEPT = 96
NEAREST = 5  # training cells shown
PREDICTED, NOTHING, OWN = "the predicted class", "all other classes", "the model's own choice"
STYLES = ("heat", "lines")
ACROSS = 4  # maps in a row of the grid
FAMILIARITY = {  # on the page to keep
    "familiar": "like the cells it was trained on (1 at most)",
    "shifted": "unlike them (above 1), another laboratory's cell or none: check its class",
    "unknown": "like no cell seen in any laboratory (above 2): do not believe its class",
}
SHEET_COLUMNS = 40  # letters in a line of the page to keep
FAILURES = (EntryError, ExplanationError, BusyError)


@dataclass(frozen=True)
class Look:
    """How maps are asked for and drawn."""

    label: str | None
    against: str | None
    method: str | None
    layer: str | None
    style: str
    colours: str
    opacity: float

    def draw(self, image: Image.Image, found: Explanation) -> Image.Image:
        """The picture with the map on it."""
        if self.style == STYLES[1]:
            return contours(image, found.values, self.colours)
        return overlay(image, found.values, self.opacity, self.colours)


def explanation(
    entry: Entry, picture: shared.Picture, image: Image.Image, look: Look, method: str | None, place: object = None
) -> Explanation:
    """The map of one picture, computed once a session; slow ones show how far they are at `place`."""
    known = st.session_state.setdefault(EXPLANATIONS, {})
    label = look.label if look.label in entry.labels else None
    against = look.against if look.against in entry.labels and look.against != label else None
    layer = look.layer if not entry.members else None
    key = (entry.folder, entry.weights, picture.id, label, against, method, layer)
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        bar = (place or st).empty()

        def watch(ticket: Ticket) -> None:
            bar.progress(ticket.progress, shared.progress_of(ticket))

        try:
            known[key] = default_runtime().explain(entry, image, label, method, against, layer, shared.client(), watch)
        finally:
            bar.empty()
    return known[key]


def pick_second(first: Entry) -> Entry | None:
    """Another model to put beside the first."""
    others = {entry.id: entry for entry in shared.usable_entries() if entry.id != first.id}
    named = distinct_titles(shared.usable_entries())
    picked = st.selectbox(
        "Second model, side by side",
        [None, *others],
        format_func=lambda name: named[name] if name else "none",
        disabled=not others,
    )
    return shared.fetched(others[picked]) if picked else None


def pick_look(first: Entry, second: Entry | None) -> Look:
    """What is to be shown, and how."""
    what, than, how = st.columns(3, gap="large")
    classes = list(dict.fromkeys([*first.labels, *(second.labels if second else [])]))
    label = what.selectbox("Evidence for", [PREDICTED, *classes])
    against = than.selectbox(
        "rather than", [NOTHING, *classes], help="What sets the class off from this one: why this, and not that?"
    )
    names = methods_for(first)
    method = how.selectbox(
        "Method",
        names,
        format_func=lambda name: METHODS[name].title,
        help="\n".join(f"- **{METHODS[name].title}**: {METHODS[name].about}" for name in names),
    )
    with st.expander("More: layer, colours, zoom", icon=":material/tune:"):
        one, two, three, four = st.columns(4)
        layers = [OWN, *_layers(first)]
        layer = one.selectbox("Layer", layers, disabled=len(layers) == 1, help="Early layers see finer, and less.")
        style = two.segmented_control("Drawn as", STYLES, default=STYLES[0], required=True)
        colours = three.selectbox("Colours", COLOURS, help="Viridis looks the same to the colour-blind.")
        opacity = four.slider("Opacity", 0.0, 1.0, 0.5, 0.05)
    return Look(
        None if label == PREDICTED else label,
        None if against == NOTHING else against,
        method,
        None if layer == OWN else layer,
        style,
        colours,
        opacity,
    )


@st.cache_data(max_entries=64, show_spinner=False)
def layers_of(identity: str, folder: str, _entry: Entry) -> list[str]:
    """Layers of an entry that may be chosen."""
    return default_runtime().layers(_entry)


def _layers(entry: Entry) -> list[str]:
    try:
        return layers_of(entry.id, str(entry.folder), entry)
    except FAILURES:
        return []  # the map itself will say what is wrong


def show_map(
    entry: Entry, picture: shared.Picture, image: Image.Image, look: Look
) -> tuple[Explanation, Image.Image] | None:
    """One model's map for one picture, with its verdict and download; None where there is none, which is said."""
    method = look.method if look.method in methods_for(entry) else None
    try:
        found = explanation(entry, picture, image, look, method)
    except FAILURES as error:
        st.error(shared.plain(error))
        return None
    if look.label and look.label not in entry.labels:
        st.caption(
            f"{shared.plain(entry.title)} has no class {shared.plain(look.label)}; shown for its predicted class."
        )
    if method != look.method:
        st.caption(f"{METHODS[look.method].title} cannot explain this model; shown: {METHODS[found.method].title}.")
    drawn = look.draw(image, found)
    st.image(drawn, width="stretch")
    st.markdown(f"{shared.plain(entry.title)} {verdict(found)}")
    told = worth(entry, found.method)
    if told:
        st.caption(told)
    shared.warn_of_strangers(entry, found.prediction)
    show_neighbours(entry, picture, image, found)
    if not found.values.any():
        st.caption("The map is empty: no region speaks for this class.")
    st.download_button(
        "Map as PNG",
        shared.png(drawn),
        f"{stem(picture)}.{entry.id}.{found.label}.png",
        "image/png",
        icon=":material/download:",
        key=f"png {entry.id} {picture.id}",
    )
    return found, drawn


def show_neighbours(entry: Entry, picture: shared.Picture, image: Image.Image, shown: Explanation) -> None:
    """The training cells that decided, where an entry decides by these: pictures at hand, else names."""
    try:
        found = default_runtime().neighbours(entry, image, NEAREST, shared.client(), shown.seen)
    except FAILURES as error:
        st.caption(str(error))
        return
    if not found:
        return
    st.caption("The nearest training cells, which decide:")
    sources = [find_source("", one.file, entry.data_set, places()) for one in found]
    if not any(sources):
        st.dataframe(pd.DataFrame(found), hide_index=True, key=f"nearest {entry.id} {picture.id}")
        return
    for column, one, source in zip(st.columns(len(found)), found, sources, strict=True):
        with column:
            if source is not None:
                with suppress(ImageError):
                    st.image(source.image(), width="stretch")
            st.caption(f"{shared.plain(one.label)}, {one.distance:.2f} away")


def worth(entry: Entry, method: str) -> str:
    """What was measured of the entry's maps by this method; empty where nothing was."""
    quality = entry.evaluation.explanations.get(method)
    if quality is None:
        return ""
    parts = []
    for name, found in quality.localisation.items():
        where = "whole smear frames" if is_on_frames(name) else "augmented fields"
        parts.append(
            f"land on the cell in {shared.percent(found.pointing)} of {found.images} {where} "
            f"(by chance {100 * found.chance:.0f} %)"
        )
    if quality.road:
        parts.append(f"have a ROAD of {quality.road.value:+.2f} ({quality.road.low:+.2f} to {quality.road.high:+.2f})")
    return f"Measured: this model's {METHODS[method].title} maps {', '.join(parts)}." if parts else ""


def verdict(found: Explanation) -> str:
    """What the model says, and what the map is of."""
    told = f"says **{found.prediction.label}** ({100 * found.prediction.confidence:.1f} %)"
    if found.label != found.prediction.label or found.against:
        share = found.prediction.probabilities[found.label]
        told += f"; shown: evidence for **{found.label}** ({100 * share:.1f} %)"
    return told + (f" rather than **{found.against}**" if found.against else "")


def stem(picture: shared.Picture) -> str:
    """A picture's name without its suffix."""
    return picture.name.rsplit(".", 1)[0]


def zoomed(images: list[tuple[str, Image.Image]]) -> go.Figure:
    """Pictures side by side that zoom and move together."""
    figure = make_subplots(1, len(images), subplot_titles=[name for name, _ in images], horizontal_spacing=0.02)
    for column, (_, image) in enumerate(images, 1):
        figure.add_image(source=shared.png_url(image), x0=0.5, y0=0.5, row=1, col=column, hoverinfo="skip")
    figure.update_xaxes(matches="x", visible=False, constrain="domain")
    figure.update_yaxes(matches="y", visible=False, constrain="domain")
    width, height = images[0][1].size
    for column in range(1, len(images) + 1):
        anchor = "x" if column == 1 else f"x{column}"
        figure.update_yaxes(scaleanchor=anchor, range=[height, 0], row=1, col=column)
        figure.update_xaxes(range=[0, width], row=1, col=column)
    return figure.update_layout(height=420, margin={"l": 0, "r": 0, "t": 28, "b": 0}, dragmode="pan")


def show_sheet(
    picture: shared.Picture, image: Image.Image, shown: list[tuple[Entry, Explanation, Image.Image]]
) -> None:
    """The picture's page, to keep: made when it is asked for."""
    panels = [
        Panel(
            drawn,
            [
                entry.title,
                f"{METHODS[found.method].title} for {found.label}"
                + (f" rather than {found.against}" if found.against else ""),
                f"entry {entry.id}",
                *sheet_notes(entry, found),
            ],
            found.prediction.probabilities,
        )
        for entry, found, drawn in shown
    ]
    for kind, mime in (("pdf", "application/pdf"), ("png", "image/png")):
        st.download_button(
            f"Page as {kind.upper()}",
            partial(sheet, image, picture.name, panels, kind),
            f"{stem(picture)}.{kind}",
            mime,
            icon=":material/description:",
            key=f"sheet {picture.id} {kind}",
        )


def sheet_notes(entry: Entry, found: Explanation) -> list[str]:
    """What the page has to say of the picture and of the map, as on the screen."""
    notes = [worth(entry, found.method) or "Not measured how well such maps of this model lie on the cell."]
    familiarity = found.prediction.familiarity
    if familiarity is not None:
        notes.append(f"Distance {found.prediction.distance:.2f}: {FAMILIARITY[familiarity]}.")
    return [line for note in notes for line in textwrap.wrap(note, SHEET_COLUMNS)]


def show_grid(entry: Entry, picture: shared.Picture, image: Image.Image, look: Look) -> None:
    """All methods on one picture, the most faithful first."""
    slow = st.toggle(
        "Slow methods too", help="ScoreCAM, AblationCAM, integrated gradients and occlusion: seconds each."
    )
    names = [name for name in methods_for(entry) if slow or METHODS[name].quick]
    if look.against:
        names = [name for name in names if METHODS[name].contrasts]
    progress = st.progress(0.0, "Asking …")
    rows: list[tuple[str, Explanation, Faithfulness | None]] = []
    for done, name in enumerate(names):
        progress.progress(done / len(names), f"{METHODS[name].title} …")
        try:
            found = explanation(entry, picture, image, look, name)
            rows.append((name, found, judged(entry, picture, image, found, look.layer)))
        except FAILURES as error:
            st.caption(f"{METHODS[name].title}: {shared.plain(error)}")
    progress.empty()
    rows.sort(key=lambda row: -row[2].road if row[2] else 1.0)
    for some in shared.chunks(rows, ACROSS):
        for column, (name, found, worth) in zip(st.columns(ACROSS), some, strict=False):
            told = f"ROAD {worth.road:+.2f}" if worth else ""
            column.image(look.draw(image, found), width="stretch", caption=f"{METHODS[name].title} {told}")
    table = pd.DataFrame(
        [
            (METHODS[name].title, worth.road, worth.deletion, worth.insertion)
            for name, _, worth in rows
            if worth is not None
        ],
        columns=["method", "ROAD", "deletion", "insertion"],
    )
    st.caption(
        "The most faithful first. ROAD: what the class loses when the marked pixels are taken away, more than when the "
        "others are (0: no better than chance, 1: all). Deletion should be low, insertion high. Of one picture, these "
        "say little: `training explain-quality` measures many."
    )
    if len(table):
        st.dataframe(table.round(3), hide_index=True)
        st.download_button("Table as CSV", shared.csv(table), f"{stem(picture)}.{entry.id}.methods.csv", "text/csv")


def judged(
    entry: Entry, picture: shared.Picture, image: Image.Image, found: Explanation, layer: str | None
) -> Faithfulness | None:
    """How faithful a map is, computed once a session; None for ensembles."""
    if entry.members:
        return None
    known = st.session_state.setdefault(JUDGED, {})
    key = (entry.folder, entry.weights, picture.id, found.label, found.against, found.method, layer)
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = default_runtime().measure_faithfulness(entry, found, shared.client())
    return known[key]


def show_parts(entry: Entry, image: Image.Image, look: Look) -> None:
    """Parts of the picture that the network tells apart, with what its head says of each."""
    try:
        found = default_runtime().concepts(entry, image, look.layer, shared.client())
    except FAILURES as error:
        st.info(shared.plain(error))
        return
    left, right = st.columns([2, 3])
    left.image(parts(image, found.maps), width="stretch")
    for number, shares in enumerate(found.probabilities):
        ranked = sorted(zip(entry.labels, shares, strict=False), key=lambda item: -item[1])[:2]
        said = ", ".join(f"{label} {100 * share:.0f} %" for label, share in ranked)
        colour = PARTS[number % len(PARTS)]
        told = f"<span style='color:{colour}'>■</span> part {number + 1}: {shared.plain(said)}"
        right.markdown(told, unsafe_allow_html=True)
    right.caption(
        "Deep feature factorisation: what the network treats alike has one colour; what its head would call it."
    )


def show_picture(picture: shared.Picture, image: Image.Image, entries: list[Entry], look: Look) -> None:
    """One picture with every model's map."""
    columns = st.columns(1 + len(entries))
    with columns[0]:
        st.image(image, width="stretch")
        st.markdown(f"{shared.plain(picture.name)}, {image.width}×{image.height}")
        if picture.credit:
            st.caption(shared.plain(picture.credit))
    shown = []
    for column, model in zip(columns[1:], entries, strict=True):
        with column:
            found = show_map(model, picture, image, look)
            if found:
                shown.append((model, *found))
    if not shown:
        return
    with st.container(horizontal=True):
        zoom = st.toggle("Zoom together", key=f"zoom {picture.id}")
        show_sheet(picture, image, shown)
    if zoom:
        figure = zoomed([("picture", image), *((model.title, drawn) for model, _, drawn in shown)])
        st.plotly_chart(figure, config={"scrollZoom": True, "displaylogo": False}, key=f"zoomed {picture.id}")


shared.page("Explain a classification")
model, upload = st.columns([2, 3], gap="large")
with model:
    entry = shared.pick_model()
    second = pick_second(entry)
with upload:
    shared.picture_input("explain")
pictures = shared.pictures()
if not pictures:
    st.info("Drop pictures above, or fetch some examples.", icon=":material/upload:")
    st.page_link("pages/examples.py", label="No picture at hand? Open the examples", icon=":material/photo_library:")
    st.stop()
readable = {}
for picture in pictures:
    image = shared.decoded(picture.id, picture.data)
    if isinstance(image, str):
        st.warning(f"{picture.name}: {image}", icon=":material/error:")
    else:
        readable[picture.id] = (picture, image)
if not readable:
    st.stop()
chosen = st.multiselect(
    "Pictures",
    list(readable),
    default=list(readable)[:SHOWN_FIRST],
    format_func=lambda identity: readable[identity][0].name,
)
look = pick_look(entry, second)
st.caption(
    f"{METHODS[look.method].title}: {METHODS[look.method].about}. {COLOURS[look.colours]}; a good map lies on the "
    "cell. Each map is scaled to its own maximum: **strengths of different images or models "
    "cannot be compared**."
)
st.image(scale_bar(colours=look.colours), caption="little → most evidence", width=260)
if not chosen:
    st.info("Choose at least one picture above.")
    st.stop()
for identity in chosen:
    with st.container(border=True):
        show_picture(*readable[identity], [entry, second] if second else [entry], look)
st.subheader("One picture, looked at in other ways")
which = st.selectbox("Picture", chosen, format_func=lambda identity: readable[identity][0].name)
views = st.tabs(["All methods", "Parts"], on_change="rerun", key="views")
if views[0].open:
    with views[0]:
        if st.toggle("Compare all methods", key="compare", help="Each map is put to the test: some seconds."):
            show_grid(entry, *readable[which], look)
        else:
            st.caption("Every method's map of this picture, with how faithful each is to the model.")
if views[1].open:
    with views[1]:
        show_parts(entry, readable[which][1], look)
