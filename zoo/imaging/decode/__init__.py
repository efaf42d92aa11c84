"""The one door for pictures: bytes, paths, arrays and Pillow pictures become RGB, or are refused with a sentence.

Contents decide what a file is, whatever it is called. Headers are checked before any pixel is decoded. Ordinary JPEG,
PNG, BMP, GIF and WebP files are decoded here; all others, whose decoders cannot be bounded from outside, in a worker
process with limits of time and memory (`worker.py`, `pool.py`).
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.imaging.decode.arrays import array_image, oriented, shallow
from zoo.imaging.decode.errors import PictureError, decoder_errors
from zoo.imaging.decode.formats import DICOM, FORMATS, LISTED, SUFFIXES, TIFF, find_format, refusal
from zoo.imaging.decode.headers import Header, read_header
from zoo.imaging.decode.pool import close_workers, shared_pool
from zoo.imaging.decode.reading import Picture, finish, read_here
from zoo.imaging.decode.tiff.directories import check_directories
from zoo.limits import PICTURE_MB

__all__ = [
    "FORMATS",
    "LISTED",
    "SUFFIXES",
    "ImageError",
    "Picture",
    "PictureError",
    "close_workers",
    "decode",
    "from_array",
    "list_pages",
    "page_name",
    "read_bytes",
    "read_image",
    "read_picture",
]

ImageError = PictureError  # its name in earlier versions
PAGE = re.compile(r"^(?P<name>.+)#page=(?P<page>[1-9]\d{0,5})$", re.DOTALL)
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # tag of a TIFF, and its value for inverted levels
SHARED_PAGE = (b"ImageJ=", b"<OME")  # programs that may store many pictures under one directory
LARGE_PIXELS = 8_000_000  # larger pictures are decoded here two at a time, whatever the number of threads
_large = threading.BoundedSemaphore(2)


def read_picture(source: bytes | Path, name: str = "", page: int | None = None) -> Picture:
    """Read an untrusted picture.

    Args:
        source: The file's content, or its path; a path may end in `#page=2`.
        name: The file's name, where only its content is given. Its ending shows whole slides, and `#page=2` a page.
        page: Number of the page, frame or slice, from 1. None: the first page, or a stack's sharpest slice.

    Raises:
        PictureError: The file cannot be read, is too large, damaged, or of another kind.

    Example:
        >>> read_picture(Path("deep.tif")).notes
        ('read as 12 bit',)
    """
    if isinstance(source, Path):
        source, named = _split_path(source)
        raw, name, page = read_bytes(source), name or source.name, page or named
    else:
        _check_bytes(len(source))
        raw = source
    bare, named = split_page(name)
    return _read(raw, bare, page or named)


def decode(data: bytes | Path) -> Image.Image:
    """Decode an untrusted picture into mode RGB: `read_picture` without what it says about the picture.

    Args:
        data: The file's content, or its path.

    Raises:
        PictureError: As `read_picture`.

    Example:
        >>> image = zoo.decode(Path("cell.png"))
        >>> image.mode
        'RGB'
    """
    return read_picture(data).image


def read_image(image: Image.Image) -> Picture:
    """Convert a Pillow picture by the rules for the file that it came from.

    Pillow keeps 8 bits of colour pictures with more: give the file for these.

    Raises:
        PictureError: It is damaged, too small, a strip or of one colour.
    """
    with decoder_errors():
        # converting changes the picture, and the caller's must stay as it is
        copied = image.copy()
        made, notes = shallow(copied)
        if made is not copied and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            made = Image.eval(made, lambda level: 255 - level)  # Pillow does so for 8 bits only
        return finish(oriented(made), 1, 1, notes)


def from_array(pixels: np.ndarray) -> Image.Image:
    """Convert an array into an RGB picture, by the rules for files.

    Args:
        pixels: (H, W), or (H, W, C) with 1 to 4 channels, of any real type.

    Raises:
        PictureError: The samples are of another type, none is finite, or the picture shows nothing.
    """
    with decoder_errors():
        image, notes = array_image(pixels)
        return finish(image, 1, 1, notes).image


def read_bytes(path: Path) -> bytes:
    """Read a picture file.

    Raises:
        PictureError: It is missing, no regular file (which is then not opened), unreadable or too large.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is not valid"
        raise PictureError(f"The file cannot be opened: {reason}.") from error
    if stat.S_ISDIR(found.st_mode):
        raise PictureError("This is a folder, not a picture.")
    if not stat.S_ISREG(found.st_mode):
        raise PictureError("This is a pipe, socket or device, not a picture.")
    _check_bytes(found.st_size)
    try:
        # without blocking: another program may have put a pipe in its place
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            raw = file.read(PICTURE_MB.bytes + 1)
    except OSError as error:
        raise PictureError(f"The file cannot be read: {error.strerror}.") from error
    _check_bytes(len(raw))
    return raw


def list_pages(source: bytes | Path) -> tuple[int, bool]:
    """Count the pictures of a file, and say whether they are the slices of one stack; (1, False) for most formats.

    Raises:
        PictureError: The file cannot be read.
    """
    raw = read_bytes(source) if isinstance(source, Path) else source
    kind = find_format(raw)
    if kind not in (TIFF, DICOM) or kind is None:
        return 1, False
    with decoder_errors():
        if kind is TIFF and len(check_directories(raw)) == 1 and not any(word in raw for word in SHARED_PAGE):
            return 1, False
        return shared_pool().list_pages(raw, kind, read_header(raw, kind))


def page_name(name: str, page: int) -> str:
    """The name of one page of a file, which `read_picture` takes."""
    return f"{name}#page={page}"


def split_page(name: str) -> tuple[str, int | None]:
    """The name of a file and the page that it asks for; None where it asks for none."""
    found = PAGE.match(name)
    return (found["name"], int(found["page"])) if found else (name, None)


def _split_path(path: Path) -> tuple[Path, int | None]:
    bare, page = split_page(str(path))
    return (path, None) if page is None or os.path.lexists(path) else (Path(bare), page)


def _check_bytes(size: int) -> None:
    if size > PICTURE_MB.bytes:
        raise PictureError(f"The file is {size / 1e6:.1f} MB; at most {PICTURE_MB.value} MB are accepted.")


def _read(raw: bytes, name: str, page: int | None) -> Picture:
    if not raw:
        raise PictureError("The file is empty. Upload the picture again.")
    if sentence := refusal(raw, name):
        raise PictureError(sentence)
    kind = find_format(raw)
    if kind is None:
        raise PictureError(f"This is not a picture we can read. Use {LISTED}.")
    with decoder_errors():
        header = read_header(raw, kind)
        if header.worker or not kind.bounded:
            return shared_pool().read(raw, kind, header, page)
        with _turn(header):
            return read_here(raw, kind, header, page)


@contextmanager
def _turn(header: Header) -> Iterator[None]:
    """Wait until few other large pictures are being decoded: each takes up to half a gigabyte meanwhile."""
    if header.cost <= LARGE_PIXELS:
        yield
        return
    with _large:
        yield
