"""System B: an ensemble of networks trained with heavy augmentation."""

from __future__ import annotations

import streamlit as st

from pages.parts.systems.overview import Shown, show_classes, show_confusion, show_curves, show_kinds, show_scores


def show(shown: Shown) -> None:
    """Show classes with pictures, the ensemble against its members, curves and confusion matrices."""
    show_classes(shown.system)
    show_kinds(shown.published[0].labels if shown.published else [])
    st.subheader("Ensemble against its members", help="Their protocol, from random weights.")
    show_scores(shown.published_scores, "ensemble against members")
    show_curves(shown.published, shown.titles)
    show_confusion(shown.published[::-1], shown.titles)
