"""Untrusted pictures are decoded to what a person sees, or refused with an error message."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.making import draw_cell
from zoo.imaging.decode import PictureError, decode, read_picture

CELL = draw_cell("neutrophil")
ARRAY = np.asarray(CELL)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def distance(image: Image.Image) -> float:
    assert image.mode == "RGB"
    assert image.size == CELL.size
    return float(np.abs(np.asarray(image, float) - ARRAY).mean())


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


WIDE = ARRAY.astype(np.uint16) * 257
GREY = np.asarray(CELL.convert("L"))
CASES = {
    "jpeg": (saved(CELL, "JPEG", quality=95), 4),
    "jpeg cmyk": (saved(CELL.convert("CMYK"), "JPEG", quality=95), 8),
    "png": (saved(CELL, "PNG"), 0),
    "png palette": (saved(CELL.quantize(256), "PNG"), 8),
    "png opaque alpha": (saved(CELL.convert("RGBA"), "PNG"), 0),
    "bmp": (saved(CELL, "BMP"), 0),
    "webp": (saved(CELL, "WEBP", lossless=True), 0),
    "gif": (saved(CELL, "GIF"), 12),
    "tiff": (saved(CELL, "TIFF"), 0),
    "tiff lzw": (saved(CELL, "TIFF", compression="tiff_lzw"), 0),
    "tiff 16 bit": (tiff(WIDE, photometric="rgb"), 1),
    "tiff 16 bit big-endian": (tiff(WIDE, photometric="rgb", byteorder=">"), 1),
    "tiff 16 bit planes": (tiff(np.moveaxis(WIDE, -1, 0), photometric="rgb", planarconfig="separate"), 1),
    "tiff 12 of 16 bit": (tiff((ARRAY.astype(np.uint16) * 16), photometric="rgb"), 1),
    "tiff float": (tiff((ARRAY / 255).astype(np.float32), photometric="rgb"), 1),
    "tiff double 0..4095": (tiff(ARRAY * (4095 / 255.0), photometric="rgb"), 1),
    "tiff 16 bit alpha": (
        tiff(np.dstack([WIDE, np.full(GREY.shape, 65535, np.uint16)]), photometric="rgb", extrasamples=["unassalpha"]),
        3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_format_decodes_to_the_expected_picture(name):
    data, tolerance = CASES[name]
    assert distance(decode(data)) <= tolerance


@pytest.mark.parametrize(
    "data",
    [
        saved(CELL.convert("L"), "PNG"),
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        tiff(GREY.astype(np.uint16) * 16),
        tiff((GREY / 255).astype(np.float32)),
        tiff(255 - GREY, photometric="miniswhite"),
        saved(CELL.convert("LA"), "PNG"),
    ],
    ids=["8 bit", "16 bit png", "12 of 16 bit", "float", "white is zero", "alpha"],
)
def test_grey_pictures_become_rgb(data):
    found = np.asarray(decode(data), float)
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0] - GREY).mean() <= 1


def test_sixteen_bit_is_rescaled_not_clipped():
    dark = ARRAY.astype(np.uint16) * 4  # ten bits used of sixteen: black if shifted, white if clipped
    found = np.asarray(decode(tiff(dark, photometric="rgb")), float)
    assert len(np.unique(found)) > 100
    assert np.corrcoef(found.ravel(), ARRAY.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = CELL.crop((0, 0, 96, 48))
    stored = saved(wide, "PNG", exif=exif)
    assert decode(stored).size == ((48, 96) if orientation >= 5 else (96, 48))
    sixteen = tiff(
        np.asarray(wide).astype(np.uint16) * 257, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    assert np.abs(np.asarray(decode(sixteen), float) - np.asarray(decode(stored), float)).mean() < 4


def test_alpha_is_laid_over_white():
    clear = CELL.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(CELL.size))
    found = np.asarray(decode(saved(clear, "PNG")))
    assert found[0].min() >= 254
    assert np.abs(found[-1].astype(int) - ARRAY[-1]).max() <= 2


def test_alpha_that_hides_everything_is_ignored():
    clear = CELL.convert("RGBA")
    clear.putalpha(0)
    found = read_picture(saved(clear, "PNG"))
    assert distance(found.image) == 0
    assert found.notes == ("transparency ignored: it would hide the whole picture",)


def test_takes_the_first_frame_of_an_animation():
    frames = [CELL, Image.new("RGB", CELL.size, "black")]
    assert distance(decode(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))) == 0


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"just text", "not a picture"),
    "jpeg cut": (saved(CELL, "JPEG")[:900], "cut short"),
    "png cut": (saved(CELL, "PNG")[:900], "cut short"),
    "tiff cut": (CASES["tiff 16 bit"][0][:5000], "damaged|cut short|cannot read"),
    "bomb": (png_header(30_000, 30_000), "900 megapixels, more than the 49"),
    "large": (png_header(9_000, 9_000), "9,000×9,000 = 81 megapixels"),
    "one pixel": (png_header(1, 1), "1×1"),
    "too many bytes": (bytes(100_000_001), "100 MB"),
    "pdf": (b"%PDF-1.7 etc", "PDF document"),
    "empty tiff": (b"II*\0" + bytes(40), "cannot read|damaged"),
    "seven channels": (
        tiff(np.zeros((64, 64, 7), np.uint16), planarconfig="contig", photometric="minisblack"),
        "stack",
    ),
    "not a number": (tiff(np.full((64, 64), np.nan, np.float32)), "finite"),
    "complex": (tiff(np.zeros((64, 64), np.complex64)), "not supported|damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_other_files(name):
    data, said = REFUSED[name]
    with pytest.raises(PictureError, match=said) as caught:
        decode(data)
    assert str(caught.value).endswith(".")


def test_refuses_a_huge_picture_before_decoding():
    # 900 megapixels would take gigabytes and many seconds
    start = time.process_time()
    with pytest.raises(PictureError):
        decode(png_header(30_000, 30_000))
    assert time.process_time() - start < 5


def test_refuses_a_huge_tiff():
    claim = bytearray(tiff(np.zeros((64, 64, 3), np.uint16), photometric="rgb"))
    with tifffile.TiffFile(io.BytesIO(bytes(claim))) as file:
        for tag in (256, 257):
            offset = file.pages[0].tags[tag].valueoffset
            claim[offset : offset + 2] = struct.pack("<H", 60_000)
    with pytest.raises(PictureError):
        decode(bytes(claim))


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "tiff lzw", "tiff 16 bit", "bmp"])
def test_damaged_files_give_an_error_message(name):
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(CASES[name][0])
        for place in random.integers(0, len(data), 12):
            data[place] = random.integers(0, 256)
        data = bytes(data[: random.integers(20, len(data))]) if random.random() < 0.3 else bytes(data)
        with contextlib.suppress(PictureError):
            assert decode(data).mode == "RGB"


def test_refuses_a_missing_file(tmp_path: Path):
    with pytest.raises(PictureError, match="cannot be opened"):
        decode(tmp_path / "none.png")
