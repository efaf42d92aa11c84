"""Why this class? Grad-CAM beside the picture, for several pictures and up to two models."""

from __future__ import annotations

import streamlit as st
from PIL import Image

from pages import shared
from zoo.api import default_runtime
from zoo.catalogue import distinct_titles
from zoo.entry import Entry, EntryError
from zoo.explain import ExplanationError
from zoo.overlay import overlay, scale_bar
from zoo.runtime import BusyError, Explanation

EXPLANATIONS = "explanations"  # key of the session's maps: (model, picture id, label) → Explanation
SHOWN_FIRST = 3
KEPT = 64
PREDICTED = "the predicted class"


def explanation(entry: Entry, picture: shared.Picture, image: Image.Image, label: str | None) -> Explanation:
    """The map of one picture, computed once a session."""
    known = st.session_state.setdefault(EXPLANATIONS, {})
    key = (entry.folder, entry.weights, picture.id, label)
    if key not in known:
        if len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = default_runtime().explain(entry, image, label)
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
    return others.get(picked) if picked else None


def show_map(entry: Entry, picture: shared.Picture, image: Image.Image, label: str | None, opacity: float) -> None:
    """One model's overlay for one picture, with its verdict and downloads."""
    try:
        found = explanation(entry, picture, image, label if label in entry.labels else None)
    except (EntryError, ExplanationError, BusyError) as error:
        st.error(str(error))
        return
    if label and label not in entry.labels:
        st.caption(f"{entry.title} has no class {label}; shown for its predicted class.")
    drawn = overlay(image, found.values, opacity)
    share = found.prediction.probabilities[found.label]
    verdict = f"says **{found.prediction.label}** ({100 * found.prediction.confidence:.1f} %)"
    if found.label != found.prediction.label:
        verdict += f"; shown: evidence for **{found.label}** ({100 * share:.1f} %)"
    st.image(drawn, width="stretch")
    st.markdown(f"{entry.title} {verdict}")
    if not found.values.any():
        st.caption("The map is empty: no region speaks for this class.")
    stem = f"{picture.name.rsplit('.', 1)[0]}.{entry.id}.{found.label}"
    st.download_button(
        "Overlay as PNG",
        shared.png(drawn),
        f"{stem}.png",
        "image/png",
        icon=":material/download:",
        key=f"png {entry.id} {picture.id}",
    )


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
which, what, how = st.columns([3, 2, 2], gap="large")
chosen = which.multiselect(
    "Pictures",
    list(readable),
    default=list(readable)[:SHOWN_FIRST],
    format_func=lambda identity: readable[identity][0].name,
)
classes = list(dict.fromkeys([*entry.labels, *(second.labels if second else [])]))
label = what.selectbox("Evidence for", [PREDICTED, *classes])
opacity = how.slider("Opacity", 0.0, 1.0, 0.5, 0.05)
st.caption(
    "Red marks where the evidence for the class comes from, blue where there is little; a good map lies on the cell. "
    "Each map is scaled to its own maximum, so **strengths of different images or models cannot be compared**."
)
st.image(scale_bar(), caption="little → most evidence", width=260)
for identity in chosen:
    picture, image = readable[identity]
    with st.container(border=True):
        columns = st.columns(3 if second else 2)
        with columns[0]:
            st.image(image, width="stretch")
            st.markdown(f"{picture.name}, {image.width}×{image.height}")
            if picture.credit:
                st.caption(picture.credit)
        for column, model in zip(columns[1:], [entry, second], strict=False):
            if model:
                with column:
                    show_map(model, picture, image, None if label == PREDICTED else label, opacity)
if not chosen:
    st.info("Choose at least one picture above.")
