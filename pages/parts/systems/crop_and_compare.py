"""System E: the cell cut out by its colour, and three families compared."""

from __future__ import annotations

import hashlib

import streamlit as st
from PIL import Image

from pages.parts.pickers import PICTURE_TYPES
from pages.parts.pictures import gallery
from pages.parts.systems.overview import Shown, show_confusion, show_curves, show_kinds, show_scores, show_wishes
from pages.parts.wording import plain
from zoo.imaging import published_crop
from zoo.imaging.decode import Picture
from zoo.sources.examples import bundled_examples

STAGE_PIXELS = 320  # of a picture's longer side: the published range is made for small pictures


def show(shown: Shown) -> None:
    """Show the crop's stages on any picture, the kinds, four scores of each model, curves and confusion matrices."""
    show_stages()
    show_kinds(shown.published[0].labels if shown.published else [])
    st.subheader("Four scores of each model", help="Their protocol.")
    show_scores(shown.published_scores, "scores of system E")
    st.caption("Accuracy of the forest is subset accuracy, as its authors counted it: a picture may get no class.")
    if shown.honest:
        st.subheader("The same without leaks")
        show_scores(shown.honest_scores, "scores of system E without leaks")
    show_curves(shown.published, shown.titles)
    show_confusion(shown.published, shown.titles)
    show_wishes(shown.system)


def show_stages() -> None:
    """Show the crop's stages on an uploaded picture or one of the examples."""
    st.subheader("The crop, stage by stage")
    examples = {one.label: one for one in bundled_examples() if one.path}
    left, right = st.columns(2, gap="large")
    name = left.selectbox("Example", [label for label in examples if label], key="crop example")
    uploaded = right.file_uploader("Or a picture of yours", type=PICTURE_TYPES, key="crop upload")
    if uploaded is not None:
        data, file, credit = uploaded.getvalue(), uploaded.name, ""
    else:
        example = examples[name]
        data, file, credit = (example.path.read_bytes() if example.path else b""), example.name, example.credit
    found = gallery.read(hashlib.sha256(file.encode() + data).hexdigest(), data, file)
    if not isinstance(found, Picture):
        st.error(plain(found))
        return
    stages = published_crop.stages(_small(found.image))
    for column, (title, image) in zip(st.columns(len(stages)), stages.items(), strict=True):
        column.image(image, caption=title, width="stretch", alt=title)
    if stages["crop"].size == stages["padded"].size:
        st.caption("Nothing purple was found: the crop is the whole padded picture.")
    if credit:
        st.caption(plain(credit))


def _small(image: Image.Image) -> Image.Image:
    """A copy of at most STAGE_PIXELS a side."""
    copy = image.copy()
    copy.thumbnail((STAGE_PIXELS, STAGE_PIXELS))
    return copy
