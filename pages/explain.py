"""Explain page: maps of evidence beside each picture, by many methods, with their measured quality."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st
from PIL import Image

from pages.parts import layout, pickers, progress, samples, session
from pages.parts.explaining import explanations, maps
from pages.parts.pictures import gallery, uploads
from pages.parts.review import examples, found, kept, state
from pages.parts.session import Picture
from pages.parts.wording import plain
from zoo.attribution import METHODS
from zoo.attribution.overlay import COLOURS, scale_bar
from zoo.entry import Entry, EntryError
from zoo.figures.prediction import linked_pictures

FIRST_PICTURES = 3  # explained before anybody chose
SCALE_PIXELS = 260

Readable = dict[str, tuple[Picture, Callable[[], Image.Image]]]  # fields are cut when a cell is chosen


def readable_pictures() -> Readable:
    """White cells of fields and other pictures that can be read, by id; a warning for each of the others.

    Stops the page without any.
    """
    try:
        cells, located = found.white_cells(session.wanted_pictures()), found.locate(session.wanted_pictures())
    except EntryError as error:
        st.error(plain(error))
        st.stop()
    readable: Readable = {}
    for picture in session.wanted_pictures():
        if picture.id in located:
            own = {key: cell for key, cell in cells.items() if key.rpartition("-")[0] == picture.id}
            readable |= {key: (part, partial(one.cut, cell)) for key, (part, one, cell) in own.items()}
            if not own:
                st.info(f"{plain(picture.name)}: no white cell was found, so there is nothing to explain.")
            continue
        image = gallery.decoded(picture.id, picture.data, picture.name)
        if isinstance(image, str):
            st.warning(f"{plain(picture.name)}: {image}", icon=":material/error:")
        else:
            readable[picture.id] = (picture, image.copy)
    if not readable:
        st.stop()
    return readable


def first_pictures(readable: Readable) -> list[str]:
    """Pictures to explain before anybody chose here: the cells that were chosen on Classify, else the first ones."""
    ids = {identity if identity in readable else identity.rpartition("-")[0] for identity in state.state().chosen}
    return [identity for identity in readable if identity in ids][:FIRST_PICTURES] or list(readable)[:FIRST_PICTURES]


def show_picture(picture: Picture, image: Image.Image, entries: list[Entry], options: explanations.MapOptions) -> None:
    """Show one picture with every model's map."""
    columns = st.columns(1 + len(entries))
    with columns[0]:
        st.image(image, width="stretch", alt=picture.name)
    drawn = []
    for column, entry in zip(columns[1:], entries, strict=True):
        with column:
            found = maps.draw_map(entry, picture, image, options)
            if found:
                drawn.append(found)
    credit = f" · {plain(picture.credit)}" if picture.credit else ""
    st.caption(f"{plain(picture.name)}, {image.width}×{image.height}{credit}")
    if not drawn:
        return
    for column, found in zip(st.columns(len(drawn)), drawn, strict=True):
        with column, st.container(key=f"about {found.entry.id} {picture.id}"):
            maps.show_about(found, picture, image)
    with st.container(horizontal=True):
        zoom = st.toggle("Zoom together", key=f"zoom {picture.id}")
        maps.offer_sheet(picture, image, drawn)
    if zoom:
        figure = linked_pictures([("picture", image), *((found.entry.title, found.image) for found in drawn)])
        st.plotly_chart(figure, config={"scrollZoom": True, "displaylogo": False}, key=f"zoomed {picture.id}")


def show_other_views(entry: Entry, readable: Readable, chosen: list[str], options: explanations.MapOptions) -> None:
    """Show one picture by all methods, or divided into parts."""
    st.subheader("One picture in other ways")
    which = st.selectbox("Picture", chosen, format_func=lambda identity: readable[identity][0].name)
    picture, image_of = readable[which]
    image = image_of()
    methods, parts = st.tabs(["All methods", "Parts"], on_change="rerun", key="views")
    if methods.open:
        with methods:
            if st.toggle("Compare all methods", key="compare", help="Each map is tested; this takes some seconds."):
                maps.show_all_methods(entry, picture, image, options)
            else:
                st.caption("Maps of this picture by every method, ranked by faithfulness to the model.")
    if parts.open:
        with parts:
            maps.show_parts(entry, image, options)


layout.page("Explain a classification")
kept.restore()
kept.show_address()
with st.expander("Pictures, model and sample", expanded=not session.pictures(), icon=":material/upload:"):
    upload, model, more = st.columns([2, 1, 1], gap="medium")
    with upload:
        uploads.picture_input("explain")
    with model:
        entry = pickers.pick_model()
    with more:
        samples.pick_sample(entry)
        second = pickers.pick_second(entry)
if not session.pictures():
    examples.offer()
    st.stop()
progress.tell_stopped()
readable = readable_pictures()
chosen = st.multiselect(
    "Pictures and cells",
    list(readable),
    default=first_pictures(readable),
    format_func=lambda identity: readable[identity][0].name,
)
maps_place = st.container()  # above the options, so that they are seen at once
options = explanations.pick_options(entry, second)
method = METHODS[options.method]
st.caption(
    f"{method.title}. {COLOURS[options.colours]}; a good map lies on the cell.",
    help=f"{method.title}: {method.about}. Each map is scaled to its own maximum, so strengths in different maps "
    "**cannot be compared**.",
)
st.image(scale_bar(colours=options.colours), caption="little → most evidence", width=SCALE_PIXELS, alt="")
if not chosen:
    st.info("Choose at least one picture above.")
    st.stop()
for identity in chosen:
    with maps_place.container(border=True, key=f"maps {identity}"):
        picture, image_of = readable[identity]
        show_picture(picture, image_of(), [entry, second] if second else [entry], options)
show_other_views(entry, readable, chosen, options)
