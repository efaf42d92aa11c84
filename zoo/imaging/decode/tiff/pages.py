"""TIFF: pages, depths, channels and pyramids, by tifffile; 8-bit pages by Pillow, which knows more colour spaces."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.imaging.decode.arrays import ORIENTATION, array_image, turned
from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import EXPORT, WHOLE_SLIDE
from zoo.imaging.decode.headers import check_ratio, check_size
from zoo.imaging.decode.ranges import Range, to_8bit
from zoo.imaging.decode.scale import plausible, tiff_scale
from zoo.imaging.decode.tiff.channels import blend, imagej_tables, ome_tables
from zoo.lazy import lazy_module
from zoo.limits import PICTURE_MEGAPIXELS, STACK_SLICES

if TYPE_CHECKING:
    import tifffile
else:
    tifffile = lazy_module("tifffile")

SLIDES = ("is_svs", "is_ndpi", "is_scn", "is_bif", "is_philips", "is_avs", "is_qpi", "is_ventana")
ICC_PROFILE, MAX_SAMPLE, SMAX_SAMPLE, DNG_VERSION = 34675, 281, 341, 50706
CAMERA_RAW = "This is a camera's raw file. Export it as PNG or JPEG."
PREMULTIPLIED = 1  # of ExtraSamples: colours are multiplied by alpha
FOURTH = "fourth channel of unknown meaning ignored"
REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
MAX_STACK_BYTES = 600_000_000
PLANE = "YXS"  # axes inside a plane; all others number planes

Plan = tuple[tifffile.TiffPageSeries, tuple[int, ...]]  # a series, and where in its other axes than plane and channel


@dataclass(frozen=True)
class TiffPicture:
    """A picture of a file, with its number among `pages`, notes, and micrometres a pixel where the file states them."""

    image: Image.Image
    page: int
    pages: int
    notes: list[str]
    um_per_px: float | None = None


def read_tiff(raw: bytes, page: int | None) -> TiffPicture:
    """Read one picture of a file: page number `page` from 1, else the first one or a stack's sharpest slice."""
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        plans, is_stack = _plans(file)
        if page is not None and page > len(plans):
            raise PictureError(f"There is no page {page}: the file has {len(plans)}.")
        if page is None and is_stack:
            found = _sharpest(file, raw, plans)
        else:
            number = page or 1
            image, notes = _read(file, raw, plans[number - 1])
            if page is None and len(plans) > 1:
                notes.insert(0, f"page 1 of {len(plans)}; a name with #page=2 reads the next one")
            found = TiffPicture(image, number, len(plans), notes)
        scale = tiff_scale(file)
        if scale is None:
            return found
        # a pyramid's smaller level has larger pixels
        series = plans[found.page - 1][0]
        full = max(size for axis, size in zip(series.axes, series.shape, strict=True) if axis in "YX")
        return replace(found, um_per_px=plausible(scale * full / max(found.image.size)))


def list_tiff(raw: bytes) -> tuple[int, bool]:
    """Count the pictures of a file, and say whether they are the slices of one stack."""
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        plans, is_stack = _plans(file)
        return len(plans), is_stack


def _plans(file: tifffile.TiffFile) -> tuple[list[Plan], bool]:
    first = file.pages[0]
    if any(getattr(file, flag, False) for flag in SLIDES):
        raise PictureError(WHOLE_SLIDE)
    if isinstance(first, tifffile.TiffPage) and DNG_VERSION in first.tags:
        raise PictureError(CAMERA_RAW)
    found = [one for one in file.series if {"Y", "X"} <= set(one.axes)]
    # a smaller copy is a page only where there is nothing else
    series = [one for one in found if not one.keyframe.subfiletype & REDUCED] or found[:1]
    if not series:
        raise ValueError("no picture")
    plans = [(one, index) for one in series for index in np.ndindex(*_other_sizes(one))]
    varying = {axis for one in series for axis, size in _others(one) if size > 1 and axis != "C"}
    return plans, len(series) == 1 and varying == {"Z"}


def _others(series: tifffile.TiffPageSeries) -> list[tuple[str, int]]:
    pairs = zip(series.axes, series.shape, strict=True)
    return [(axis, size) for axis, size in pairs if axis not in PLANE]


def _other_sizes(series: tifffile.TiffPageSeries) -> list[int]:
    return [1 if axis == "C" else size for axis, size in _others(series)]


def _sharpest(file: tifffile.TiffFile, raw: bytes, plans: list[Plan]) -> TiffPicture:
    """The slice with the strongest edges, of at most STACK_SLICES evenly spaced ones."""
    step = -(-len(plans) // STACK_SLICES.value)
    best, found = -1.0, None
    for number in range(0, len(plans), step):
        image, notes = _read(file, raw, plans[number])
        grey = np.asarray(image.convert("L"), np.float32)
        sharpness = float(np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean())
        if sharpness > best:
            best, found = sharpness, (image, number + 1, notes)
    if found is None:
        raise ValueError("no slice")
    image, number, notes = found
    said = f"slice {number} of {len(plans)}, the sharpest; the others were left out"
    return TiffPicture(image, number, len(plans), [said, *notes])


def _read(file: tifffile.TiffFile, raw: bytes, plan: Plan) -> tuple[Image.Image, list[str]]:
    series, index = plan
    notes: list[str] = []
    level = _level(series, notes)
    keyframe = level.keyframe
    if keyframe.imagedepth > 1:
        raise PictureError("This TIFF holds a volume. Export one plane as RGB or grey.")
    planes = list(_planes(level, index, len(raw)))
    if len(planes) > 1:
        image, said = _join(file, planes)
        return turned(image, keyframe.tags.valueof(ORIENTATION)), notes + said
    if table := _own_table(file, planes[0]):
        joined, said = blend([planes[0].pixels()], table)
        return turned(Image.fromarray(joined), keyframe.tags.valueof(ORIENTATION)), notes + said
    image, said = _one_plane(raw, level, planes[0])
    return image, notes + said


def _own_table(file: tifffile.TiffFile, plane: _Plane) -> list[np.ndarray]:
    """The colours that ImageJ shows a single channel in; empty where it is shown in grey."""
    if not file.is_imagej or plane.series.keyframe.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        return []
    stored = (file.imagej_metadata or {}).get("LUTs")  # tifffile gives a single table without its list
    if not isinstance(stored, np.ndarray):
        return []
    table = imagej_tables({"LUTs": [stored]}, 1)
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1)
    return [] if np.array_equal(table[0], grey) else table


def _level(series: tifffile.TiffPageSeries, notes: list[str]) -> tifffile.TiffPageSeries:
    """The largest level of a pyramid within the limit of pixels."""
    limit = 1_000_000 * PICTURE_MEGAPIXELS.value
    levels = list(series.levels)
    sizes = [one.keyframe.imagewidth * one.keyframe.imagelength for one in levels]
    fitting = [(number, one) for number, (one, size) in enumerate(zip(levels, sizes, strict=True), 1) if size <= limit]
    if not fitting:
        width, height = series.keyframe.imagewidth, series.keyframe.imagelength
        raise PictureError(
            f"The picture has {width:,}×{height:,} = {width * height / 1e6:.0f} megapixels, more than the "
            f"{PICTURE_MEGAPIXELS.value} megapixels accepted: a whole slide or a scan. {EXPORT}"
        )
    number, level = fitting[0]
    check_size(level.keyframe.imagewidth, level.keyframe.imagelength)
    if len(levels) > 1:
        size = f"{level.keyframe.imagewidth:,}×{level.keyframe.imagelength:,}"
        notes.append(f"level {number} of a pyramid of {len(levels)}, {size} pixels")
    return level


class _Plane:
    """One plane of a series: read when asked for."""

    def __init__(self, series: tifffile.TiffPageSeries, index: tuple[int, ...], stored: int) -> None:
        self.series, self.index, self.stored = series, index, stored
        sizes = [size for _, size in _others(series)]
        self.number = int(np.ravel_multi_index(index, sizes)) if sizes else 0
        self.alone = len(series.pages) == math.prod(sizes)  # each plane is a page

    @property
    def page(self) -> tifffile.TiffPage | None:
        """Its page; None if several planes share one."""
        page = self.series.pages[self.number] if self.alone else None
        return page.aspage() if page is not None else None

    def pixels(self) -> np.ndarray:
        """Samples (H, W) or (H, W, S)."""
        page = self.page
        if page is not None:
            check_ratio(math.prod(page.shape) * (page.dtype or np.dtype(np.uint8)).itemsize, self.stored)
            found, axes = page.asarray(), page.axes
        else:
            size = math.prod(self.series.shape) * self.series.dtype.itemsize
            check_ratio(size, self.stored)
            if size > MAX_STACK_BYTES:
                raise PictureError(
                    f"The stack in this TIFF takes {size / 1e6:,.0f} MB. Export one plane as RGB or grey."
                )
            whole = self.series.asarray()
            axes = "".join(axis for axis in self.series.axes if axis in PLANE)
            order = [n for n, axis in enumerate(self.series.axes) if axis not in PLANE]
            found = np.moveaxis(whole, order, range(len(order)))[self.index]
        if axes == "SYX":
            found = np.moveaxis(found, 0, -1)
        return found


def _planes(series: tifffile.TiffPageSeries, index: tuple[int, ...], stored: int) -> Iterator[_Plane]:
    """The channels of one picture."""
    axes = [axis for axis, _ in _others(series)]
    channels = dict(_others(series)).get("C", 1)
    for channel in range(channels):
        where = tuple(channel if axis == "C" else place for axis, place in zip(axes, index, strict=True))
        yield _Plane(series, where, stored)


def _join(file: tifffile.TiffFile, planes: list[_Plane]) -> tuple[Image.Image, list[str]]:
    count = len(planes)
    if file.is_imagej:
        tables = imagej_tables(file.imagej_metadata or {}, count)
    elif file.is_ome:
        tables = ome_tables(file.ome_metadata or "", count)
    else:
        raise PictureError(f"This TIFF has {count} channels without colours. Export it as RGB.")
    pixels = [plane.pixels() for plane in planes]
    if pixels[0].ndim != 2:
        image, notes = array_image(pixels[0][..., :3])
        return image, [f"first of {count} channels", *notes]
    joined, notes = blend(pixels, tables)
    return Image.fromarray(joined), notes


def _one_plane(raw: bytes, series: tifffile.TiffPageSeries, plane: _Plane) -> tuple[Image.Image, list[str]]:
    keyframe = series.keyframe
    page = plane.page
    unnamed = keyframe.samplesperpixel == 4 and not any(keyframe.extrasamples)
    photometric = keyframe.photometric
    notes = [FOURTH] if unnamed and photometric == tifffile.PHOTOMETRIC.RGB else []
    narrow = (
        photometric == tifffile.PHOTOMETRIC.PALETTE and keyframe.colormap is not None and keyframe.colormap.max() < 256
    )
    pillow = keyframe.bitspersample in (1, 2, 4, 8) and not narrow  # 8-bit palettes of old programs would become black
    if page is not None and pillow and not page.is_subifd and not notes:
        with suppress(Exception):  # what Pillow does not know, tifffile may
            return _by_pillow(raw, page.index), []
    if photometric not in READABLE:
        raise PictureError("The colours of this TIFF are stored in a way that we do not read. Export it as RGB.")
    grey = photometric == tifffile.PHOTOMETRIC.MINISBLACK
    samples = keyframe.samplesperpixel
    if samples > 4 or (grey and samples in (2, 4) and not any(keyframe.extrasamples)):
        raise PictureError(f"This TIFF is a stack of {samples} channels without colours. Export it as RGB or grey.")
    pixels = plane.pixels()
    if notes:
        pixels = pixels[..., :3]
    if keyframe.bitspersample < 8 and photometric != tifffile.PHOTOMETRIC.PALETTE:
        pixels = to_8bit(pixels.astype(np.uint16), Range(0.0, float(2**keyframe.bitspersample - 1)))
    image, said = array_image(_coloured(pixels, keyframe), _stated(keyframe))
    if keyframe.extrasamples and keyframe.extrasamples[-1] == PREMULTIPLIED and image.mode in ("LA", "RGBA"):
        mode = {"LA": "La", "RGBA": "RGBa"}[image.mode]
        image = Image.frombytes(mode, image.size, image.tobytes()).convert(image.mode)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        image = Image.eval(image, lambda level: 255 - level)
    elif photometric == tifffile.PHOTOMETRIC.SEPARATED:
        image = Image.frombytes("CMYK", image.size, image.tobytes())
    image = turned(image, keyframe.tags.valueof(ORIENTATION))
    profile = keyframe.tags.valueof(ICC_PROFILE)
    if isinstance(profile, bytes):
        image.info["icc_profile"] = profile
    return image, notes + said


READABLE = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.SEPARATED,
    tifffile.PHOTOMETRIC.YCBCR,  # tifffile turns JPEG's into RGB and refuses others
)


def _by_pillow(raw: bytes, index: int) -> Image.Image:
    image = Image.open(io.BytesIO(raw), formats=("TIFF",))
    image.seek(index)
    check_size(*image.size)
    check_ratio(image.width * image.height * 3, len(raw))
    image.load()  # turns it too
    return image


def _coloured(pixels: np.ndarray, keyframe: tifffile.TiffPage) -> np.ndarray:
    """The pixels with their palette applied."""
    if keyframe.photometric != tifffile.PHOTOMETRIC.PALETTE or keyframe.colormap is None:
        return pixels
    colours = np.moveaxis(keyframe.colormap, 0, -1)
    return (colours.astype(np.uint8) if colours.max() < 256 else (colours >> 8).astype(np.uint8))[pixels]


def _stated(keyframe: tifffile.TiffPage) -> float | None:
    """The full scale that the page states, if any."""
    for tag in (SMAX_SAMPLE, MAX_SAMPLE):
        value = keyframe.tags.valueof(tag)
        highest = max(value, default=None) if isinstance(value, tuple) else value
        if isinstance(highest, int | float):
            return float(highest)
    if keyframe.bitspersample not in (8, 16, 32, 64):  # packed samples of 10, 12 or 14 bits
        return float(2**keyframe.bitspersample - 1)
    return None
