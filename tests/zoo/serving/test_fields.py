"""Questions to a classifier about a picture whose cells were found, and records of the answers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.making import draw_cell
from tests.zoo.serving.test_runtime import hold
from zoo.api import get_entry
from zoo.detection.detector import Cells, FoundCell
from zoo.detection.objects import PLATELET, RED, WHITE
from zoo.imaging.decode import Picture
from zoo.serving.batch import classify_files
from zoo.serving.bulk import as_record, csv_header, csv_row, is_last
from zoo.serving.fields import ask_about, close_up, name_found
from zoo.serving.runtime import Runtime

SIZE = (640, 480)


class Known:
    """A detector that finds what it is told."""

    def __init__(self, *cells: FoundCell, scale: float | None = None) -> None:
        self.cells, self.file_scale = cells, scale

    def find(self, image, um_per_px=None, file_um_per_px=None) -> Cells:
        assert file_um_per_px == self.file_scale
        return Cells(image.size, self.cells, None)


def cell(x: float, y: float, side: float, kind: str = WHITE, cut: bool = False) -> FoundCell:
    return FoundCell((x - side / 2, y - side / 2, x + side / 2, y + side / 2), kind, 0.9, cut)


@pytest.fixture(scope="module")
def field() -> Image.Image:
    noise = np.random.default_rng(0).integers(180, 230, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for place in ((60, 60), (400, 250)):
        image.paste(draw_cell("neutrophil", 1, (100, 100)), place)
    return image


RULES = {
    "one large cell in the middle": ((160, 160), [cell(80, 85, 70)], 0),
    "beside cells that the edge cuts": ((160, 160), [cell(80, 80, 70), cell(10, 80, 40, cut=True)], 0),
    "beside red cells": ((160, 160), [cell(80, 80, 60), cell(20, 20, 35, RED)], 0),
    "two whole cells": ((160, 160), [cell(70, 80, 60), cell(130, 130, 40)], None),
    "a cell in the middle of a field": (SIZE, [cell(320, 240, 90)], None),
    "a cell off the middle": ((160, 160), [cell(30, 30, 50)], None),
    "a platelet": ((160, 160), [cell(80, 80, 30, PLATELET), cell(20, 20, 40, RED)], 0),
    "a platelet of a field": (SIZE, [cell(320, 240, 20, PLATELET)], None),
    "a platelet beside a white cell": ((160, 160), [cell(80, 80, 30, PLATELET), cell(30, 30, 60)], None),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_of_one_cell_is_told_from_a_field(rule):
    size, cells, expected = RULES[rule]
    assert close_up(Cells(size, tuple(cells), None)) == (None if expected is None else cells[expected])


def test_a_close_up_is_asked_about_as_a_whole_and_a_field_by_its_white_cells(field):
    alone = Picture(field.crop((60, 60, 160, 160)))
    asked = ask_about(alone, Known(cell(50, 50, 60)))
    assert (asked.parts, asked.nothing) == ((alone.image,), None)
    cells = [cell(110, 110, 60), cell(300, 300, 40, RED), cell(450, 300, 60)]
    asked = ask_about(Picture(field, um_per_px=0.1), Known(*cells, scale=0.1))
    assert asked.cells == (cells[0], cells[2])
    for part, (x, y) in zip(asked.parts, [(110, 110), (450, 300)], strict=True):
        half = part.width / 2
        assert part.width == part.height == pytest.approx(60 * 1.9, abs=2)
        assert np.array_equal(part, field.crop((round(x - half), round(y - half), round(x + half), round(y + half))))


def test_where_no_white_cell_is_the_rest_is_counted_and_where_nothing_is_the_model_decides(field):
    asked = ask_about(
        Picture(field), Known(cell(100, 100, 40, RED), cell(200, 100, 40, RED), cell(300, 300, 9, PLATELET))
    )
    assert (asked.parts, asked.nothing) == ((), "No white cell found, only 2 red cells, 1 platelet.")
    assert ask_about(Picture(field), Known()).parts == (field,)
    assert ask_about(Picture(field), None).parts == (field,)


def test_every_white_cell_gives_a_record_and_a_row(field, tmp_path):
    field.save(tmp_path / "field.png")
    entry = get_entry("cnn60")
    known = Known(cell(110, 110, 60), cell(450, 300, 60), cell(300, 100, 40, RED))
    files = [("field.png", tmp_path / "field.png"), ("gone.png", tmp_path / "gone.png")]
    with Runtime("cpu") as runtime:
        results = list(classify_files(runtime, entry, files, detector=known))
        crop = ask_about(Picture(field), known).parts[1]
        assert results[1].prediction.probabilities == pytest.approx(
            runtime.classify(entry, crop).probabilities, abs=1e-3
        )
        (red_only,) = classify_files(runtime, entry, files[:1], detector=Known(known.cells[2]))
    records = [as_record(result) for result in results]
    assert [(one["file"], one["page"], one.get("cell"), is_last(one)) for one in records] == [
        ("field.png", None, 1, False),
        ("field.png", None, 2, True),
        ("gone.png", None, None, True),
    ]
    assert [one.get("box") for one in records] == [known.cells[0].box, known.cells[1].box, None]
    empty = as_record(red_only)
    assert (empty["label"], empty["probabilities"]) == (None, None)
    assert empty["warning"] == "No white cell found, only 1 red cell."
    header = csv_header(entry.labels)
    for record in (*records, empty):
        row = dict(zip(header, csv_row(record, entry.labels), strict=True))
        assert row["cell"] == (record.get("cell") or "")
        assert [row[side] for side in ("left", "top", "right", "bottom")] == list(record.get("box") or [""] * 4)


def test_naming_the_cells_of_a_field_tells_its_progress_and_can_be_cancelled(field):
    entry = get_entry("cnn60")
    many = Cells(field.size, tuple(cell(60 + 6 * n, 110, 60) for n in range(80)), None)
    with Runtime("cpu", batch_size=4) as runtime:
        blocker, told = hold(runtime, entry), []

        def watch(share: float) -> None:
            told.append(share)
            if len(told) == 2:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            name_found(runtime, entry, many, field, watch=watch)
        blocker.set()
        assert told == [0.0, 0.0]
        named = name_found(runtime, entry, many, field, watch=lambda share: None)
        assert runtime.waiting() == 0
        assert runtime.status().answered < 2 * len(many.cells), "most of the cancelled cells were not run"
    assert all(answer is not None for answer in named.answers)


def test_a_caller_that_stops_leaves_no_picture_waiting(field, tmp_path):
    field.save(tmp_path / "field.png")
    with Runtime("cpu", batch_size=4) as runtime:
        files = [(f"{n}.png", tmp_path / "field.png") for n in range(60)]
        stream = classify_files(runtime, get_entry("cnn60"), files)
        assert next(stream).error is None
        stream.close()
        assert runtime.classify(get_entry("cnn60"), field).label
        assert runtime.waiting() == 0
        assert runtime.status().answered < len(files)
