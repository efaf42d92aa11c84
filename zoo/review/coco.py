"""Reviewed cells in the COCO format of object detection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.review.cells import Reviewed
from zoo.review.kinds import UNSURE
from zoo.version import __version__


def coco(cells: Sequence[Reviewed], files: Mapping[str, str], sizes: Mapping[str, tuple[int, int]]) -> bytes:
    """A COCO file: the boxes with the kinds that count, and beside each the model's answer and who decided.

    Args:
        cells: The cells; those without a kind are left out, because COCO has no box without a category.
        files: File of each picture by the hash of its content.
        sizes: Width and height of each picture, by hash.
    """
    named = [one for one in cells if one.kind]
    kinds = sorted({str(one.kind) for one in named})
    images = {picture: number for number, picture in enumerate(files, 1)}
    content = {
        "info": {"description": "Blood-cell review, not for diagnosis", "contributor": f"HemaZoo {__version__}"},
        "images": [
            {"id": number, "file_name": files[picture], "width": sizes[picture][0], "height": sizes[picture][1]}
            for picture, number in images.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(kinds, 1)],
        "annotations": [
            _annotation(one, number, images[one.cell.picture], kinds.index(str(one.kind)) + 1)
            for number, one in enumerate(named, 1)
        ],
    }
    return json.dumps(content, indent=1).encode()


def _annotation(one: Reviewed, number: int, image: int, category: int) -> dict[str, Any]:
    left, top, right, bottom = one.cell.box
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [round(float(value), 2) for value in (left, top, right - left, bottom - top)],
        "area": round(float((right - left) * (bottom - top)), 2),
        "iscrowd": 0,
        "model": one.cell.answer,
        "confidence": round(one.cell.confidence, 6),
    }
    if one.decision:
        annotation |= {"reader": one.decision.reader, "time": one.decision.time, "note": one.decision.note}
        annotation["unsure"] = one.kind == UNSURE
    return annotation
