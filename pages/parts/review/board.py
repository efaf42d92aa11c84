"""The board: a gallery of cells by kind beside their field, with keys, drag and menus. Its script is board.js."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image
from streamlit import runtime

from pages.parts.pictures import gallery
from pages.parts.review import state
from pages.parts.review.found import Examined, cell_id
from zoo.detection.objects import WHITE
from zoo.review.cells import WHOLE, Cell, Reviewed
from zoo.review.kinds import kinds, title_of
from zoo.serving.results import Prediction

HERE = Path(__file__).parent
KEY = "review board"
THUMBNAIL_PIXELS, SHEET_COLUMNS, SHEET_CELLS = 72, 8, 64  # as in board.css and board.js; of one sheet
FIELD_PIXELS = 1600  # longer side of a field that is sent to the browser
VIEW_UM, VIEW_WHITE = 22.0, 1.7  # side of a thumbnail's square: in micrometres, or in sides of a white cell
JPEG_QUALITY = 88

_board = st.components.v2.component(
    "hemazoo_board",
    html=(HERE / "board.html").read_text(encoding="utf-8"),
    css=(HERE / "board.css").read_text(encoding="utf-8"),
    js=(HERE / "board.js").read_text(encoding="utf-8"),
)

Shown = tuple[Examined, Reviewed]


def in_gallery(one: Reviewed) -> bool:
    """Whether a cell is in the gallery and the table: white cells, whole pictures, and what a reader decided about."""
    return one.cell.object in (WHITE, WHOLE) or one.decision is not None


def show(examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> None:
    """Show the board; what is done on it is kept in the session's review.

    Args:
        examined: The pictures.
        reviewed: The cells of each with their decisions.
    """
    listed = [(seen, one) for seen, cells in zip(examined, reviewed, strict=True) for one in cells if in_gallery(one)]
    active = active_cell(examined, reviewed)
    fields = [number for number, seen in enumerate(examined) if seen.found is not None]
    shown = next((n for n in fields if active and examined[n] is active[0]), fields[0] if fields else None)

    def handle() -> None:
        for event in st.session_state[KEY].get("events") or ():
            _handle(event, examined, reviewed, shown)

    sheets, places = _sheets(listed)
    review = state.state()
    field = None
    if shown is not None:
        field = _field(examined[shown], reviewed[shown]) | {
            "several": len(fields) > 1,
            "place": f"{fields.index(shown) + 1} of {len(fields)}",
        }
    data = {
        "cells": [_cell(seen, one, place) for (seen, one), place in zip(listed, places, strict=True)],
        "kinds": [
            {"name": k.name, "title": k.title or k.name, "short": k.short, "key": k.key, "colour": k.colour}
            for k in kinds().values()
        ],
        "sheets": sheets,
        "field": field,
        "chosen": [cell_id(active[0].picture, active[1].cell.number)]
        if active and not review.chosen
        else review.chosen,
        "told": review.told,
        "seen": review.seen,
    }
    _board(data=data, key=KEY, on_events_change=handle)


def active_cell(examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> Shown | None:
    """The cell that was chosen last, else the first of the gallery; None where there is none."""
    chosen = set(state.state().chosen[-1:])
    first = None
    for seen, cells in zip(examined, reviewed, strict=True):
        for one in cells:
            if cell_id(seen.picture, one.cell.number) in chosen:
                return seen, one
            if first is None and in_gallery(one):
                first = seen, one
    return first


def chosen_cells(examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]]) -> list[Reviewed]:
    """The chosen cells; the active one where none was chosen."""
    chosen = set(state.state().chosen)
    found = [one for _, one in _with_ids(examined, reviewed, chosen)]
    active = None if found else active_cell(examined, reviewed)
    return [active[1]] if active else found


def reasons(cell: Cell, prediction: Prediction | None) -> str:
    """Reason to look at a cell again; empty without one."""
    if prediction is None:
        return ""
    if prediction.familiarity == "unknown":
        return "no recognisable cell"
    return "; ".join(prediction.acceptance.reasons)


def _with_ids(
    examined: Sequence[Examined], reviewed: Sequence[Sequence[Reviewed]], wanted: set[str]
) -> list[tuple[str, Reviewed]]:
    return [
        (identity, one)
        for seen, cells in zip(examined, reviewed, strict=True)
        for one in cells
        if (identity := cell_id(seen.picture, one.cell.number)) in wanted
    ]


def _handle(
    event: dict[str, Any],
    examined: Sequence[Examined],
    reviewed: Sequence[Sequence[Reviewed]],
    shown: int | None,
) -> None:
    """Do what an event of the board asks for, once."""
    number = int(event.get("number", 0))
    if number <= state.state().seen:
        return
    state.change(seen=number, told="")
    what, wanted = event.get("type"), [str(identity) for identity in event.get("cells", ())]
    cells = [one for _, one in _with_ids(examined, reviewed, set(wanted))]
    if what == "choose":
        state.choose(wanted)
    elif what == "give" and event.get("kind") in kinds():
        state.give([one.cell for one in cells], event["kind"])
        state.choose([str(identity) for identity in event.get("next", ())])
    elif what == "approve":
        state.approve(cells)
    elif what in ("undo", "redo"):
        (state.undo if what == "undo" else state.redo)()
    elif what == "field" and shown is not None:
        _turn(examined, shown, int(event.get("step", 1)))


def _turn(examined: Sequence[Examined], shown: int, step: int) -> None:
    """Choose the first cell of the next field; a field without cells is passed over."""
    fields = [n for n, seen in enumerate(examined) if seen.found is not None and seen.cells]
    if not fields:
        return
    after = fields[(fields.index(shown) + step) % len(fields)] if shown in fields else fields[0]
    seen = examined[after]
    first = next((cell for cell in seen.cells if cell.object == WHITE), seen.cells[0])
    state.choose([cell_id(seen.picture, first.number)])


def _cell(seen: Examined, one: Reviewed, place: tuple[int, int]) -> dict[str, Any]:
    cell, prediction = one.cell, seen.predictions.get(one.cell.number)
    return {
        "id": cell_id(seen.picture, cell.number),
        "number": cell.number if seen.found is not None else "",
        "file": seen.picture.name,
        "kind": one.kind or "",
        "model": cell.answer or "",
        "decided": one.decision is not None,
        "share": confidence(cell, digits=0),
        "check": "" if one.decision else reasons(cell, prediction),
        "sheet": place[0],
        "at": place[1],
    }


def _field(seen: Examined, reviewed: Sequence[Reviewed]) -> dict[str, Any]:
    boxes = []
    for one in reviewed:
        cell = one.cell
        boxes.append(
            {
                "id": cell_id(seen.picture, cell.number),
                "number": cell.number,
                "box": cell.box,
                "kind": one.kind or "",
                "object": cell.object,
                "other": cell.object != WHITE,
            }
        )
    # white cells are drawn last, above the others
    boxes.sort(key=lambda box: not box["other"])
    data = _field_jpeg(seen.picture.id, seen)
    white = sum(one.cell.object == WHITE for one in reviewed)
    return {
        "url": _url(data, f"field {seen.picture.id}"),
        "file": seen.picture.name,
        "alt": f"{seen.picture.name}: a field with {white} white cells and {len(reviewed) - white} other cells",
        "width": seen.size[0],
        "height": seen.size[1],
        "boxes": boxes,
    }


@st.cache_data(max_entries=64, show_spinner=False)
def _field_jpeg(identity: str, _seen: Examined) -> bytes:
    return _jpeg(_shrunk(_seen.image, FIELD_PIXELS))


def _sheets(listed: Sequence[Shown]) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Sheets with the thumbnails of cells, and the sheet and place of each cell."""
    sheets, places = [], []
    for number, part in enumerate(gallery.chunks(listed, SHEET_CELLS)):
        key = tuple((seen.picture.id, one.cell.box) for seen, one in part)
        data = _sheet(key, part)
        sheets.append({"url": _url(data, f"cells {number}"), "columns": min(SHEET_COLUMNS, len(part))})
        places += [(number, place) for place in range(len(part))]
    return sheets, places


@st.cache_data(max_entries=128, show_spinner=False)
def _sheet(key: tuple[Any, ...], _cells: Sequence[Shown]) -> bytes:
    columns, side = min(SHEET_COLUMNS, len(_cells)), THUMBNAIL_PIXELS
    sheet = Image.new("RGB", (columns * side, -(-len(_cells) // columns) * side), "white")
    for place, (seen, one) in enumerate(_cells):
        thumbnail = _thumbnail(seen, one.cell)
        thumbnail = thumbnail.resize((side, side)) if seen.found is not None else _shrunk(thumbnail, side)
        row, column = divmod(place, columns)
        free = side - thumbnail.width, side - thumbnail.height
        sheet.paste(thumbnail, (column * side + free[0] // 2, row * side + free[1] // 2))
    return _jpeg(sheet)


def _thumbnail(seen: Examined, cell: Cell) -> Image.Image:
    """A square around a cell; its side is the same for all cells of a field, so that sizes can be compared."""
    if seen.found is None:
        return seen.image
    white = sorted(max(one.box[2] - one.box[0], one.box[3] - one.box[1]) for one in seen.found.of(WHITE))
    own = max(cell.box[2] - cell.box[0], cell.box[3] - cell.box[1])
    side = VIEW_WHITE * (white[len(white) // 2] if white else own)
    if seen.found.scale is not None:
        side = VIEW_UM / seen.found.scale.um_per_px
    side = min(side, *seen.size)
    left = min(max(0.0, (cell.box[0] + cell.box[2] - side) / 2), seen.size[0] - side)
    top = min(max(0.0, (cell.box[1] + cell.box[3] - side) / 2), seen.size[1] - side)
    return seen.image.crop((round(left), round(top), round(left + side), round(top + side)))


def _shrunk(image: Image.Image, pixels: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((pixels, pixels))
    return small


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _url(data: bytes, place: str) -> str:
    """Address of a JPEG on this server, so that it is sent to the browser once and not with every change."""
    if not runtime.exists():
        return gallery.jpeg_data_url(data)
    address: str = runtime.get_instance().media_file_mgr.add(data, "image/jpeg", f"{KEY} {place}")
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{base}{address}" if base else address


def confidence(cell: Cell, digits: int = 1) -> str:
    """The model's confidence in percent; empty where it recognised no kind, since the number is not about that."""
    return f"{100 * cell.confidence:.{digits}f} %" if cell.answer else ""


def kind_title(kind: str | None) -> str:
    """A kind written out; of a cell that no kind was given."""
    return title_of(kind) if kind else "no recognisable cell"
