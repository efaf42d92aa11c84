"""Explanation maps on the page: one map, its quality and its download, all methods, and parts of a picture."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import streamlit as st
from PIL import Image

from pages.parts import progress, samples, session, tables, wording
from pages.parts.explaining import explanations
from pages.parts.explaining.explanations import FAILURES, NETWORK, PREDICTED, MapOptions
from pages.parts.pictures import gallery
from pages.parts.session import Picture
from pages.parts.wording import plain
from zoo.api import default_runtime
from zoo.attribution import METHODS
from zoo.attribution.faithfulness import Faithfulness, energy_inside, share_of
from zoo.attribution.overlay import PARTS, parts
from zoo.benchmarks import find_source
from zoo.data.offered import offered_folders
from zoo.detection.cut import cell_box
from zoo.entry import Entry
from zoo.figures.sheet import Panel, sheet
from zoo.imaging.decode import PictureError
from zoo.lazy import lazy_module
from zoo.serving.runtime import Explanation, methods_for

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_module("pandas")

NEIGHBOURS = 5  # training cells that are shown
MAPS_PER_ROW = 4
TOP_CLASSES = 2  # named for each part of a picture
NOTE_LETTERS = 40  # in a line of the printable page
FORMATS: tuple[tuple[Literal["pdf", "png"], str], ...] = (("pdf", "application/pdf"), ("png", "image/png"))
FAMILIARITY = {  # notes on the printable page
    "familiar": "like the training cells (limit 1)",
    "shifted": "unlike the training cells (limit 1): check the class",
    "unknown": "no recognisable blood cell (limit 2)",
}


@dataclass(frozen=True)
class DrawnMap:
    """A model's map, drawn on the picture."""

    entry: Entry
    explanation: Explanation
    image: Image.Image


def draw_map(entry: Entry, picture: Picture, image: Image.Image, options: MapOptions) -> DrawnMap | None:
    """Show one model's map; an error message, and None, if there is none."""
    method = options.method if options.method in methods_for(entry) else None
    try:
        explanation = explanations.explain(entry, picture, image, options, method)
    except explanations.StoppedMap:
        st.caption(f"{METHODS[method].title if method else 'The map'} was stopped.")
        explanations.offer_to_go_on(f"go on {entry.id} {picture.id}")
        return None
    except FAILURES as error:
        st.error(plain(error))
        return None
    if options.label not in (PREDICTED, NETWORK, *entry.labels):
        st.caption(f"{plain(entry.title)} has no class {plain(options.label)}; shown for its predicted class.")
    if method != options.method:
        st.caption(
            f"{METHODS[options.method].title} cannot explain this model; shown: {METHODS[explanation.method].title}."
        )
    drawn = options.draw(image, explanation)
    about = entry.class_names.get(explanation.label, explanation.label)
    st.image(drawn, width="stretch", alt=f"Map of the evidence for {about} on {picture.name}")
    return DrawnMap(entry, explanation, drawn)


def show_about(found: DrawnMap, picture: Picture, image: Image.Image) -> None:
    """Show what a map says, its quality and its download."""
    entry, explanation = found.entry, found.explanation
    about = entry.class_names.get(explanation.label, explanation.label)
    st.markdown(f"{plain(entry.title)} {wording.verdict(entry, explanation)}")
    if where := where_it_lies(image, explanation, about):
        st.markdown(plain(where))
    if text := samples.difference(entry, explanation.prediction):
        st.markdown(plain(text))
    st.caption(samples.about(explanation.prediction.sample, entry))
    wording.show_map_quality(entry, explanation.method)
    wording.warn_if_unfamiliar(entry, explanation.prediction)
    _show_neighbours(entry, picture, image, explanation)
    if not explanation.values.any():
        st.caption("The map is empty: no region is evidence for this class.")
    st.download_button(
        "Map as PNG",
        gallery.png(found.image),
        f"{picture.stem}.{entry.id}.{explanation.label}.png",
        "image/png",
        icon=":material/download:",
        key=f"png {entry.id} {picture.id}",
    )


def where_it_lies(image: Image.Image, explanation: Explanation, about: str) -> str:
    """Sentence on how much of the evidence lies on the cell; empty where no cell is found, or the map is empty."""
    box = cell_box(image)
    if box is None or not explanation.values.any():
        return ""
    share, chance = energy_inside(explanation.values, box), share_of(box, image.size)
    text = f"{100 * share:.0f} % of the evidence for {about} lies on the cell, which fills {100 * chance:.0f} %"
    return f"{text} of the picture." if share > chance else f"Only {text} of the picture: do not trust this map."


def _show_neighbours(entry: Entry, picture: Picture, image: Image.Image, explanation: Explanation) -> None:
    """Show the nearest training cells if the entry classifies by these: pictures if available, else names."""
    try:
        neighbours = default_runtime().neighbours(entry, image, NEIGHBOURS, session.client(), explanation.seen)
    except FAILURES as error:
        st.caption(plain(error))
        return
    if not neighbours:
        return
    st.caption("The class is that of the nearest training cells:")
    names = entry.class_names
    sources = [find_source("", one.file, entry.data_set, offered_folders()) for one in neighbours]
    if not any(sources):
        st.dataframe(pd.DataFrame(neighbours), hide_index=True, key=f"nearest {entry.id} {picture.id}")
        return
    for column, one, source in zip(st.columns(len(neighbours)), neighbours, sources, strict=True):
        with column:
            if source is not None:
                with suppress(PictureError):
                    st.image(source.image(), width="stretch", alt=f"Training cell: {names.get(one.label, one.label)}")
            st.caption(f"{plain(names.get(one.label, one.label))}, distance {one.distance:.2f}")


def _sheet_title(found: DrawnMap) -> str:
    names, one = found.entry.class_names, found.explanation
    title = f"{METHODS[one.method].title} for {names.get(one.label, one.label)}"
    return title + (f" rather than {names.get(one.against, one.against)}" if one.against else "")


def offer_sheet(picture: Picture, image: Image.Image, drawn: list[DrawnMap]) -> None:
    """Offer a printable page about the picture; it is made when somebody clicks."""
    panels = [
        Panel(
            found.image,
            [
                found.entry.title,
                _sheet_title(found),
                f"entry {found.entry.id}",
                *_sheet_notes(found),
            ],
            found.explanation.prediction.probabilities,
        )
        for found in drawn
    ]
    for kind, mime in FORMATS:
        st.download_button(
            f"Page as {kind.upper()}",
            partial(sheet, image, picture.name, panels, kind),
            f"{picture.stem}.{kind}",
            mime,
            icon=":material/description:",
            key=f"sheet {picture.id} {kind}",
        )


def _sheet_notes(drawn: DrawnMap) -> list[str]:
    """Lines about the map's quality and the picture's familiarity."""
    prediction = drawn.explanation.prediction
    quality = wording.map_quality(drawn.entry, drawn.explanation.method)
    notes = [quality or "Not measured how well this model's maps lie on the cell."]
    notes.append(f"Sample: {samples.described(prediction.sample, drawn.entry)}.")
    if text := samples.difference(drawn.entry, prediction):
        notes.append(text)
    notes.append("; ".join([f"Decision: {prediction.acceptance.decision}", *prediction.acceptance.reasons]) + ".")
    if prediction.familiarity is not None:
        notes.append(f"Distance {prediction.distance:.2f}: {FAMILIARITY[prediction.familiarity]}.")
    return [line for note in notes for line in textwrap.wrap(note, NOTE_LETTERS)]


def show_all_methods(entry: Entry, picture: Picture, image: Image.Image, options: MapOptions) -> None:
    """Show the maps of all methods, the most faithful first."""
    slow = st.toggle("Slow methods too", help="ScoreCAM, AblationCAM, integrated gradients, occlusion: seconds each.")
    names = [name for name in methods_for(entry) if slow or METHODS[name].quick]
    if options.against:
        names = [name for name in names if METHODS[name].contrasts]
    rows, stopped = _compute_all(entry, picture, image, options, names)
    if stopped:
        st.caption(f"Stopped: {', '.join(METHODS[name].title for name in stopped)}.")
        explanations.offer_to_go_on("go on with all methods")
    rows.sort(key=lambda row: -row[2].road if row[2] else 1.0)
    for part in gallery.chunks(rows, MAPS_PER_ROW):
        for column, (name, explanation, score) in zip(st.columns(MAPS_PER_ROW), part, strict=False):
            road = f"ROAD {score.road:+.2f}" if score else ""
            column.image(
                options.draw(image, explanation),
                width="stretch",
                caption=f"{METHODS[name].title} {road}".strip(),
                alt=f"Map of the evidence by {METHODS[name].title}",
            )
    st.caption(
        "The most faithful first, by ROAD.",
        help="ROAD: how much more the class loses when the marked pixels are removed than when the others are (0: no "
        "better than chance, 1: all). Deletion should be low, insertion high. One picture says little: "
        "`python -m training explain-quality` measures many.",
    )
    scores = [(METHODS[name].title, s.road, s.deletion, s.insertion) for name, _, s in rows if s is not None]
    if scores:
        table = pd.DataFrame(scores, columns=["method", "ROAD", "deletion", "insertion"])
        st.dataframe(table.round(3), hide_index=True)
        tables.csv_button("Table as CSV", table, f"{picture.stem}.{entry.id}.methods.csv")


def _compute_all(
    entry: Entry, picture: Picture, image: Image.Image, options: MapOptions, names: list[str]
) -> tuple[list[tuple[str, Explanation, Faithfulness | None]], list[str]]:
    """The maps of some methods with their faithfulness, and the methods that the visitor stopped."""
    rows: list[tuple[str, Explanation, Faithfulness | None]] = []
    stopped, part = [], 1 / max(1, len(names))
    unfinished = [explanations.map_key(entry, picture, options, name) for name in names]
    with progress.long_work("stop all methods", explanations.stop, unfinished) as work:
        for done, name in enumerate(names):
            text = f"{METHODS[name].title}, {done + 1} of {len(names)}"
            work.show(done * part, text)
            try:
                follow = partial(work.follow, text=text, before=done * part, part=part)
                explanation = explanations.explain(entry, picture, image, options, name, follow)
                rows.append((name, explanation, explanations.faithfulness(entry, picture, explanation, options.layer)))
            except explanations.StoppedMap:
                stopped.append(name)
            except FAILURES as error:
                st.caption(f"{METHODS[name].title}: {plain(error)}")
            unfinished.pop(0)
    return rows, stopped


def show_parts(entry: Entry, image: Image.Image, options: MapOptions) -> None:
    """Show the parts of the picture that the network distinguishes, with the classes of each."""
    try:
        found = default_runtime().concepts(entry, image, options.layer, session.client())
    except FAILURES as error:
        st.info(plain(error))
        return
    left, right = st.columns([2, 3])
    left.image(parts(image, found.maps), width="stretch", alt=f"The picture's {len(found.maps)} parts in colours")
    for number, probabilities in enumerate(found.probabilities):
        ranked = sorted(zip(entry.labels, probabilities, strict=False), key=lambda item: -item[1])[:TOP_CLASSES]
        classes = ", ".join(f"{label} {100 * probability:.0f} %" for label, probability in ranked)
        colour = PARTS[number % len(PARTS)]
        text = f"<span style='color:{colour}'>■</span> part {number + 1}: {plain(classes)}"
        right.markdown(text, unsafe_allow_html=True)
    right.caption(
        "Regions that the network treats alike have one colour.",
        help="Deep feature factorisation. The classes are those that the network's last layer gives each part alone.",
    )
