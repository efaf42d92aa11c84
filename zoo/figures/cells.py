"""A field with its cells: boxes, numbers and names."""

from __future__ import annotations

from PIL import Image, ImageDraw

from zoo.detection.objects import PLATELET, RED, WHITE
from zoo.serving.fields import NamedCells

# colours of Okabe & Ito (2008), which the colour-blind tell apart; the line's width differs too
LOOKS = {WHITE: ("#0072B2", 3), RED: ("#D55E00", 1), PLATELET: ("#009E73", 2)}
FONT_SHARE = 45  # of the picture's longer side
MIN_FONT = 11  # pixels


def draw_cells(image: Image.Image, named: NamedCells) -> Image.Image:
    """A copy of an RGB picture with a box around each cell; white cells have their number and kind."""
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    font_size = max(MIN_FONT, max(image.size) // FONT_SHARE)
    for number, (cell, answer) in enumerate(zip(named.found.cells, named.answers, strict=True), 1):
        colour, width = LOOKS[cell.object]
        pen.rectangle(cell.box, outline=colour, width=width)
        if answer is not None:
            text = f"{number} {answer.label}"
            left, top = cell.box[0], max(0.0, cell.box[1] - font_size - 4)
            around = pen.textbbox((left + 2, top), text, font_size=font_size)
            pen.rectangle((around[0] - 2, around[1] - 2, around[2] + 2, around[3] + 2), fill=colour)
            pen.text((left + 2, top), text, fill="white", font_size=font_size)
    return drawn
