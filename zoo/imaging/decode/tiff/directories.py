"""The directories of a TIFF, walked before any library reads them: loops, counts and overlapping strips."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from zoo.imaging.decode.errors import PictureError
from zoo.limits import TIFF_PAGES

WIDTH, HEIGHT, STRIP_COUNTS, TILE_COUNTS, SUB_IFDS = 256, 257, 279, 325, 330
SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the types that these tags may have
CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
MAX_ENTRIES = 4096  # of a directory
OVERLAP = 2  # strips together may be this many times as long as the file
LOOP = "The directories of this TIFF form a loop. It is damaged or made to exhaust the machine. Export it again."


@dataclass(frozen=True)
class _Layout:
    """Storage of numbers: byte order and struct codes of TIFF or BigTIFF."""

    order: str
    count: str
    entry: str
    offset: str

    def unpack(self, raw: bytes, code: str, place: int) -> int:
        return int(struct.unpack_from(self.order + code, raw, place)[0])


def check_directories(raw: bytes) -> list[tuple[int, int]]:
    """Walk all directories, those of pyramids included.

    Returns:
        Width and height that each declares.

    Raises:
        PictureError: They form a loop, are too many, or their strips overlap: a small file unpacks to much.
    """
    order = "<" if raw[:2] == b"II" else ">"
    big = raw[2:4] in (b"+\0", b"\0+")
    layout = _Layout(order, "Q", "HHQ", "Q") if big else _Layout(order, "H", "HHI", "I")
    seen: set[int] = set()
    sizes: list[tuple[int, int]] = []
    try:
        waiting = [layout.unpack(raw, layout.offset, 8 if big else 4)]
        while waiting:
            place = waiting.pop()
            if place == 0 or place >= len(raw):
                continue
            if place in seen:
                raise PictureError(LOOP)
            seen.add(place)
            if len(seen) > TIFF_PAGES.value:
                raise PictureError(f"This TIFF has more than {TIFF_PAGES.value:,} pages. Split it.")
            following, inside, size = _directory(raw, place, layout)
            waiting += [*inside, following]
            sizes.append(size)
    except struct.error as error:
        raise PictureError("The file is cut short: part of the picture is missing. Copy or export it again.") from error
    return sizes


def _directory(raw: bytes, place: int, layout: _Layout) -> tuple[int, list[int], tuple[int, int]]:
    """The place of the next directory, those of directories inside this one, and the size of its picture."""
    count = layout.unpack(raw, layout.count, place)
    if count > MAX_ENTRIES:
        raise PictureError("The file is damaged: its header makes no sense. Copy or export it again.")
    start = place + struct.calcsize(layout.order + layout.count)
    size = struct.calcsize(layout.order + layout.entry + layout.offset)
    inside: list[int] = []
    sides = {WIDTH: 0, HEIGHT: 0}
    for number in range(count):
        entry = start + number * size
        tag, kind, values = struct.unpack_from(layout.order + layout.entry, raw, entry)
        if tag in (STRIP_COUNTS, TILE_COUNTS):
            if sum(_values(raw, entry, kind, values, layout)) > OVERLAP * len(raw):
                raise PictureError(
                    "The strips of this TIFF overlap. It is damaged or made to exhaust the machine. Export it again."
                )
        elif tag in sides:
            sides[tag] = next(_values(raw, entry, kind, values, layout), 0)
        elif tag == SUB_IFDS:
            inside += _values(raw, entry, kind, values, layout)
    end = start + count * size
    following = layout.unpack(raw, layout.offset, end) if end + struct.calcsize(layout.offset) <= len(raw) else 0
    return following, inside, (sides[WIDTH], sides[HEIGHT])


def _values(raw: bytes, entry: int, kind: int, count: int, layout: _Layout) -> Iterator[int]:
    """The numbers of one tag, as far as the file holds them."""
    if kind not in SIZES or count > len(raw):
        return
    data = entry + struct.calcsize(layout.order + layout.entry)
    if count * SIZES[kind] > struct.calcsize(layout.offset):
        data = layout.unpack(raw, layout.offset, data)
    if data + count * SIZES[kind] <= len(raw):
        yield from struct.unpack_from(f"{layout.order}{count}{CODES[kind]}", raw, data)
