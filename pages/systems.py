"""Systems page: five published systems as their authors showed them, beside what is true without leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from pages.parts import entries as zoo_entries
from pages.parts import layout, plots
from pages.parts.systems import classical_heads, crop_and_compare, ensemble, fine_tuning, frozen_or_custom, overview
from zoo.entry import readable_entries
from zoo.systems import published_systems, reproductions

SHOWS: Mapping[str, Callable[[overview.Shown], None]] = {
    "A": frozen_or_custom.show,
    "B": ensemble.show,
    "C": classical_heads.show,
    "D": fine_tuning.show,
    "E": crop_and_compare.show,
}


layout.page("Published systems", "Five published classifiers, trained again. Sources and differences: docs/systems.md.")
systems = published_systems()
letters = list(systems)
address = st.query_params.get("system")
left, right = st.columns([3, 1], gap="large", vertical_alignment="bottom")
letter = left.selectbox(
    "System",
    letters,
    index=letters.index(address) if address in letters else 0,
    format_func=lambda one: f"{one}: {systems[one].title}",
    key="system",
)
st.query_params["system"] = letter
right.segmented_control("Download figures as", ["PNG", "SVG"], default="PNG", required=True, key=plots.FORMAT)
shown = overview.Shown(systems[letter], reproductions(systems[letter], readable_entries(zoo_entries.entries())))
overview.show(shown)
SHOWS[letter](shown)
