"""Reviewed cells as a data set: a ZIP file with a folder for each kind."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence

from PIL import Image

from zoo.review.cells import Reviewed
from zoo.review.kinds import NOT_TRAINED

NOT_IN_NAME = re.compile(r"[^\w.-]+")


def labelled(cells: Sequence[Reviewed]) -> list[Reviewed]:
    """Cells that a reader decided about, and whose kind can be trained with."""
    return [one for one in cells if one.decision is not None and one.decision.kind not in NOT_TRAINED]


def class_folders(cells: Sequence[Reviewed], cut: Callable[[Reviewed], Image.Image], files: dict[str, str]) -> bytes:
    """Labelled cells as PNG files in class folders, in a ZIP file.

    Args:
        cells: The cells; see `labelled`.
        cut: Function from a cell to its picture.
        files: File of each picture by hash; the name of a cell's file begins with it.
    """
    buffer = io.BytesIO()
    names: Counter[str] = Counter()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for one in cells:
            assert one.decision is not None
            stem = (
                NOT_IN_NAME.sub("-", files.get(one.cell.picture, "picture").rsplit(".", 1)[0]).strip(".-") or "picture"
            )
            name = f"{NOT_IN_NAME.sub('-', one.decision.kind)}/{stem}-{one.cell.number}"
            names[name] += 1
            suffix = f"-{names[name]}" if names[name] > 1 else ""
            picture = io.BytesIO()
            cut(one).save(picture, "PNG")
            file.writestr(f"{name}{suffix}.png", picture.getvalue())
    return buffer.getvalue()
