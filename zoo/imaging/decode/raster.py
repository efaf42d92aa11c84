"""Pictures that Pillow reads, and the deeper ones among them, of which Pillow would keep 8 bits."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
from PIL import Image

from zoo.imaging.decode import formats
from zoo.imaging.decode.arrays import array_image, oriented, shallow
from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import Format
from zoo.imaging.decode.headers import Header, check_ratio, check_size

PILLOW_NAMES = {
    formats.JPEG.name: "JPEG",
    formats.PNG.name: "PNG",
    formats.BMP.name: "BMP",
    formats.GIF.name: "GIF",
    formats.WEBP.name: "WEBP",
    formats.PNM.name: "PPM",
    formats.JPEG2000.name: "JPEG2000",
    formats.AVIF.name: "AVIF",
}
FIRST_FRAME = "first frame of an animation"
PNM_HEADER = re.compile(rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,5})\s")

# sizes are checked before Pillow sees a file, and its warnings quote the file
warnings.filterwarnings("ignore", module=r"PIL\..*")


def read_raster(raw: bytes, kind: Format, header: Header) -> tuple[Image.Image, list[str]]:
    """Decode a file to an upright picture with 8 bits a sample, in any mode of Pillow; returns it with notes."""
    if kind is formats.HEIC:
        return _heic(raw)
    if deep := _deep(raw, kind, header):
        return deep
    image = Image.open(io.BytesIO(raw), formats=(PILLOW_NAMES[kind.name],))
    if header.worker:  # the size may be known only now
        check_size(*image.size)
        check_ratio(image.width * image.height * 3, len(raw))
    notes = _frames(image, kind, header)
    image.load()
    if header.cicp:
        image.info["cicp"] = header.cicp
    made, said = shallow(image, 65535.0 if kind is formats.PNM else None)
    return oriented(made), notes + said


def _frames(image: Image.Image, kind: Format, header: Header) -> list[str]:
    if kind is formats.PNG:
        return [FIRST_FRAME] if header.frames > 1 else []
    # other kinds: a second picture in a JPEG or HEIC is a depth map or a preview
    animated = kind in (formats.GIF, formats.WEBP, formats.AVIF) and getattr(image, "is_animated", False)
    return [FIRST_FRAME] if animated else []


def _deep(raw: bytes, kind: Format, header: Header) -> tuple[Image.Image, list[str]] | None:
    """The picture from more than 8 bits a sample; None where Pillow is to read it."""
    if kind is formats.PNG and header.bits > 8:
        import imagecodecs  # noqa: PLC0415 (only workers need it)

        return _with_metadata(raw, "PNG", imagecodecs.png_decode(raw), _full_scale(header.sample_bits), header)
    if kind is formats.JPEG and header.worker and header.bits > 8:
        import imagecodecs  # noqa: PLC0415

        return array_image(imagecodecs.jpeg_decode(raw), _full_scale(header.bits))
    if kind is formats.JPEG2000 and header.bits > 8:
        import imagecodecs  # noqa: PLC0415

        return array_image(imagecodecs.jpeg2k_decode(raw), _full_scale(header.bits))
    if kind is formats.PNM and (found := PNM_HEADER.match(raw)) and int(found[4]) > 255:
        width, height, top = (int(found[number]) for number in (2, 3, 4))
        check_size(width, height)
        channels = 3 if found[1] == b"6" else 1
        count = width * height * channels
        if len(raw) < found.end() + 2 * count:
            raise EOFError
        pixels = np.frombuffer(raw, ">u2", count, found.end()).astype(np.uint16)
        return array_image(pixels.reshape(height, width, channels), float(top))
    return None


def _with_metadata(
    raw: bytes, name: str, pixels: np.ndarray, stated: float | None, header: Header
) -> tuple[Image.Image, list[str]]:
    """A deep picture with the profile and orientation that Pillow finds beside the pixels."""
    image, notes = array_image(pixels, stated)
    with Image.open(io.BytesIO(raw), formats=(name,)) as opened:
        opened.load()
        image.info = opened.info | ({"cicp": header.cicp} if header.cicp else {})
        image.info.pop("transparency", None)  # one of the 16-bit samples
        exif = opened.getexif()
    if exif:
        image.info["exif"] = exif.tobytes()
    return oriented(image), notes


def _full_scale(bits: int | None) -> float | None:
    return float(2**bits - 1) if bits and bits <= 32 else None


def _heic(raw: bytes) -> tuple[Image.Image, list[str]]:
    import pillow_heif  # noqa: PLC0415 (only workers need it)

    opened = pillow_heif.open_heif(io.BytesIO(raw), convert_hdr_to_8bit=True)
    check_size(*opened.size)
    image = opened.to_pillow()
    if image is None:
        raise PictureError("This HEIC file holds no picture.")
    # the decoder has turned the picture, whatever EXIF says
    image.info.pop("exif", None)
    more = len(opened) - 1
    return image, [f"main picture; {more} more in the file"] if more else []
