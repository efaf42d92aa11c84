"""Decoding of untrusted picture files into RGB, with an error message for the user where that is not possible."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
LIMIT = f"{MAX_PIXELS // 1_000_000} megapixels"
SMALLER = "Scale it down or cut the cell out."
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
NAMES = "JPEG, PNG, BMP, WebP, TIFF or GIF"
SAMPLE_MAXIMA = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))  # of the bit depths that cameras use
MAX_CHANNELS = 4  # of a TIFF: grey, grey + alpha, RGB, RGB + alpha
BITS_PER_SAMPLE, ORIENTATION = 258, 274  # tags of TIFF 6.0; the second is EXIF's too
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes of TIFF and BigTIFF


# decoders raise nearly anything on hostile input, and each of these means the same to the user
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """A picture that cannot be used; the message is a sentence for the user."""


def decode(data: bytes | Path) -> Image.Image:
    """Decode an untrusted picture into mode RGB.

    EXIF orientation is applied, alpha is laid over white, and of an animation the first frame is taken. 16-bit and
    float samples are rescaled to 0..255 by their own bit depth (with a bit shift, a 16-bit picture that uses 12 bits
    would be black).

    Args:
        data: the file's content, or its path.

    Raises:
        ImageError: the file is missing, larger than 20 MB or 50 megapixels (known from its header, before any pixel is
            decoded), cut short, or of another kind.

    Example:
        >>> image = zoo.decode(Path("cell.png"))
        >>> image.mode
        'RGB'
    """
    raw = read_bytes(data) if isinstance(data, Path) else _checked(data)
    if not raw:
        raise ImageError("The file is empty. Upload the picture again.")
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning comes at a larger size than our limit, which is checked below
            warnings.simplefilter("ignore")
            return _decode(raw)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("The picture needs more memory than there is. Upload a smaller one.") from error
    except DECODER_ERRORS as error:
        raise ImageError(_reason(error)) from error


def read_bytes(path: Path) -> bytes:
    """Read a picture file. Raises ImageError if it is missing, cannot be read or is larger than 20 MB."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ImageError(f"The file cannot be opened: {error.strerror}.") from error
    _check_bytes(size)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"The file cannot be read: {error.strerror}.") from error


def from_array(pixels: np.ndarray) -> Image.Image:
    """Convert an array into an RGB picture, by the rules of `decode`.

    Args:
        pixels: (H, W), or (H, W, C) with 1 to 4 channels, of any numeric type.

    Raises:
        ImageError: the samples are of another type, or none is finite.
    """
    squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    return _to_rgb(Image.fromarray(_rescale(np.ascontiguousarray(squeezed))))


def _checked(data: bytes) -> bytes:
    _check_bytes(len(data))
    return data


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"The file is {size / 1e6:.1f} MB; at most {MAX_BYTES // 1_000_000} MB are accepted.")


def _decode(raw: bytes) -> Image.Image:
    image = _open(raw)
    _check_size(*image.size)
    if image.format == "TIFF" and _needs_tifffile(image):
        return _decode_tiff(raw)
    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    return _to_rgb(image)


def _open(raw: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow's own limit, far above ours
        raise ImageError(f"The picture is far larger than the {LIMIT} accepted. {SMALLER}") from error
    except UnidentifiedImageError as error:
        if raw[:4] in TIFF_MAGIC:
            return _TiffOnly(raw)
        raise ImageError(f"This is not a picture we can read. Use {NAMES}.") from error


class _TiffOnly(Image.Image):
    """Header of a TIFF whose sample layout Pillow does not know (floats of several channels, 16-bit RGB planes)."""

    format = "TIFF"

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        with tifffile.TiffFile(io.BytesIO(raw)) as file:
            page = _first_page(file)
            self._size = (page.imagewidth, page.imagelength)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The picture has {width:,}×{height:,} = {width * height / 1e6:.0f} megapixels, more than the {LIMIT} "
            f"accepted. {SMALLER}"
        )
    if width < 2 or height < 2:
        raise ImageError(f"The picture has only {width}×{height} pixels.")


def _first_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    """The first page of a TIFF. Raises ValueError where it has no header of its own."""
    page = file.pages[0]
    if not isinstance(page, tifffile.TiffPage):
        raise ValueError("no page")
    return page


def _needs_tifffile(image: Image.Image) -> bool:
    if not isinstance(image, TiffImageFile):
        return True
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,))
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def _decode_tiff(raw: bytes) -> Image.Image:
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        page = _first_page(file)
        # checked again, as the library reads it that is going to allocate
        _check_size(page.imagewidth, page.imagelength)
        if page.samplesperpixel > MAX_CHANNELS or page.imagedepth > 1:
            raise ImageError("This TIFF is a stack of channels or depths. Export one plane as RGB or grey.")
        pixels = page.asarray()
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        orientation = page.tags.valueof(ORIENTATION)
    if planar:
        pixels = np.moveaxis(pixels, 0, -1)
    if inverted:
        pixels = pixels.max() - pixels
    image = _to_rgb(Image.fromarray(_rescale(pixels)))
    if orientation in range(2, 9):
        image.getexif()[ORIENTATION] = orientation
        image = ImageOps.exif_transpose(image)
    return image


def _rescale(pixels: np.ndarray) -> np.ndarray:
    """Rescale (H, W) or (H, W, C) of any numeric type to uint8; the brightest value that a sample can have becomes 255.

    That value is 1 for floats up to 1, else that of the smallest usual bit depth that holds all samples (cameras store
    12 bits in 16), else the picture's own maximum. Negative samples shift the range.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
        raise ImageError(f"Samples of type {pixels.dtype} are not supported. Export the picture as 8- or 16-bit.")
    # single precision and in place: 50 megapixels of double would take gigabytes a picture
    values = pixels.astype(np.float32)
    has_alpha = values.ndim == 3 and values.shape[-1] in (2, 4)
    colours = values[..., :-1] if has_alpha else values
    known = np.isfinite(colours)
    if not known.any():
        raise ImageError("The picture holds no finite value.")
    low = min(float(colours.min(where=known, initial=np.inf)), 0.0)
    largest = float(colours.max(where=known, initial=-np.inf)) - low
    colours -= low
    colours /= _brightest(largest, floating=np.issubdtype(pixels.dtype, np.floating))
    if has_alpha:
        # alpha has a range of its own
        values[..., -1] /= np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    values.clip(0, 1, out=values)
    values *= 255
    return np.rint(values, out=values).astype(np.uint8)


def _brightest(largest: float, floating: bool) -> float:
    if floating and largest <= 1:
        return 1.0
    return next((top for top in SAMPLE_MAXIMA if largest <= top), largest)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_rescale(np.asarray(image)))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
        return "The file is cut short: part of the picture is missing. Copy or export it again."
    return f"The file is damaged or of a kind we cannot read. Export it again as {NAMES}."
