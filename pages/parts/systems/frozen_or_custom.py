"""System A: frozen transfer against a custom CNN."""

from __future__ import annotations

import streamlit as st

from pages.parts.systems.overview import Shown, show_confusion, show_curves

GRID = """\
Reported: eight runs, learning rate 0.001 or 0.01, dropout 0.3 or 0.5, L2 0.001 or 0.01; best at 0.01, 0.5 and 0.001.
The grid was not run here: it takes eight trainings of two hours. This runs it:

```
python -m training sweep cnn5_224 --published --space cnn5_224 --data FOLDER
```
"""


def show(shown: Shown) -> None:
    """Show curves of the three side by side, epochs, the grid and confusion matrices."""
    show_curves(shown.published, shown.titles)
    with st.expander("Grid search of the custom CNN", icon=":material/grid_on:"):
        st.markdown(GRID)
    show_confusion(shown.published, shown.titles)
