"""One file's bytes become one picture, in this process; `zoo.imaging.decode` decides in which process that is."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from zoo.imaging.decode import formats
from zoo.imaging.decode.colour import to_rgb
from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import Format
from zoo.imaging.decode.headers import Header, check_size

PROBES = 8  # a side: pixels compared before a whole picture is searched for a second colour


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that was read.

    Attributes:
        image: RGB (sRGB, 8 bit), upright, without metadata.
        page: Number of the page, frame or slice, from 1.
        pages: How many the file has.
        notes: What was assumed, converted or left out, for the user: "read as 12 bit".
        um_per_px: Micrometres a pixel as the file states them; None where it does not.
    """

    image: Image.Image
    page: int = 1
    pages: int = 1
    notes: tuple[str, ...] = ()
    um_per_px: float | None = None


def read_here(raw: bytes, kind: Format, header: Header, page: int | None) -> Picture:
    """Decode a file whose header was checked. Raises whatever its decoder raises."""
    number, pages, scale = 1, 1, None
    if kind is formats.TIFF:
        from zoo.imaging.decode.tiff.pages import read_tiff  # noqa: PLC0415 (only workers need it)

        found = read_tiff(raw, page)
        image, number, pages, notes, scale = found.image, found.page, found.pages, found.notes, found.um_per_px
    elif kind is formats.DICOM:
        from zoo.imaging.decode.dicom import read_dicom  # noqa: PLC0415

        image, number, pages, notes, scale = read_dicom(raw, page)
        if page is None and pages > 1:
            notes.insert(0, f"page 1 of {pages}; a name with #page=2 reads the next one")
    else:
        from zoo.imaging.decode.raster import read_raster  # noqa: PLC0415

        if page is not None and page > 1:
            raise PictureError(f"There is no page {page}: the file has one picture.")
        image, notes = read_raster(raw, kind, header)
    return finish(image, number, pages, notes, scale)


def finish(image: Image.Image, page: int, pages: int, notes: list[str], um_per_px: float | None = None) -> Picture:
    """Convert a decoded picture to RGB and refuse one that shows nothing.

    Raises:
        PictureError: It is too small, a strip, or of one colour.
    """
    check_size(*image.size)
    made, said = to_rgb(image)
    if _is_flat(made):
        raise PictureError("The picture has a single colour: it shows nothing. Choose another one.")
    return Picture(made, page, pages, (*notes, *said), um_per_px)


def _is_flat(image: Image.Image) -> bool:
    """Whether all pixels are alike; most pictures show otherwise in a few of them."""
    width, height = image.size
    first = image.getpixel((0, 0))
    for step in range(1, PROBES):
        if image.getpixel((step * width // PROBES, step * height // PROBES)) != first:
            return False
    return all(len(set(band.getextrema())) == 1 for band in image.split())
