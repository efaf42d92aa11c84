"""Pictures made to exhaust the machine: small files that ask for gigabytes, hours or endless loops; all by code."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tests.zoo.imaging.encodings import ARRAY, CELL, chunk, dicom, heif, saved, tiff, with_chunks

HUGE = 200_000_000  # bytes that a bomb unpacks to


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def many_scans(count: int = 5000) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    raw = saved(CELL.resize((4000, 3000)), "JPEG", progressive=True)
    last = raw.rindex(b"\xff\xda")
    return raw[:last] + raw[last:-2] * 10 + (b"\xff\xda\0\x08\x01\x01\0\x01\x3f\x10" + b"\0") * count + raw[-2:]


def patched(raw: bytes, **tags: int) -> bytes:
    """A TIFF with the values of tags of its first page overwritten."""
    changed = bytearray(raw)
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        for name, value in tags.items():
            tag = file.pages[0].tags[name]
            size = struct.calcsize("<" + tag.dtype.name[0]) if tag.dtype.name[0] in "HIQ" else tag.valuebytecount
            changed[tag.valueoffset : tag.valueoffset + size] = value.to_bytes(size, "little")
    return bytes(changed)


def looping_tiff() -> bytes:
    """The last directory names the first one as its next."""
    raw = bytearray(tiff(np.stack([ARRAY, ARRAY])))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        first, last = file.pages[0].offset, file.pages[1].offset
    count = struct.unpack_from("<H", raw, last)[0]
    struct.pack_into("<I", raw, last + 2 + 12 * count, first)
    return bytes(raw)


def overlapping_tiff() -> bytes:
    """A thousand strips that all name the whole file."""
    rows, strips = 4, 1000
    raw = bytearray(tiff(np.zeros((rows * strips, 4000, 3), np.uint8), rowsperstrip=rows, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        tags = file.pages[0].tags
        counts, offsets = tags[279], tags[273]
        for tag, value in ((counts, len(raw) - 16), (offsets, 8)):
            code, size = ("<H", 2) if tag.dtype == 3 else ("<I", 4)
            for number in range(strips):
                struct.pack_into(code, raw, tag.valueoffset + size * number, min(value, 65535 if size == 2 else value))
    return bytes(raw)


def strip_bomb(compression: str, packed: bytes) -> bytes:
    """A TIFF of 4,000×3,000 declared pixels whose one strip unpacks to 200 MB."""
    raw = tiff(ARRAY, compression=compression, rowsperstrip=len(ARRAY))
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        page = file.pages[0]
        counts, offsets = page.tags[279], page.tags[273]
    changed = bytearray(raw)
    struct.pack_into("<I" if counts.dtype != 3 else "<H", changed, counts.valueoffset, min(len(packed), 65535))
    struct.pack_into("<I", changed, offsets.valueoffset, len(raw))
    return bytes(changed) + packed


def jpeg2000_header(side: int) -> bytes:
    raw = bytearray(saved(CELL, "JPEG2000"))
    place = raw.index(b"\xff\x51") + 6
    struct.pack_into(">II", raw, place, side, side)
    return bytes(raw)


def heif_header(raw: bytes, side: int) -> bytes:
    changed, place = bytearray(raw), raw.find(b"ispe")
    while place >= 0:
        struct.pack_into(">II", changed, place + 8, side, side)
        place = raw.find(b"ispe", place + 4)
    return bytes(changed)


def dicom_header(side: int) -> bytes:
    raw = dicom(ARRAY, 8)
    for tag in (b"\x28\0\x10\0US\2\0", b"\x28\0\x11\0US\2\0"):
        raw = raw.replace(tag + b"\x80\0", tag + struct.pack("<H", side))
    return raw


def laughing_ome() -> bytes:
    entities = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    xml = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "ha">{entities}]><OME><a>&a9;</a></OME>'
    return tiff(np.moveaxis(ARRAY, -1, 0), photometric="minisblack", description=xml)


def gif_header(side: int) -> bytes:
    raw = bytearray(saved(CELL, "GIF"))
    struct.pack_into("<HH", raw, 6, side, side)
    return bytes(raw)


def bmp_header(side: int) -> bytes:
    raw = bytearray(saved(CELL, "BMP"))
    struct.pack_into("<ii", raw, 18, side, side)
    return bytes(raw)


def webp_header() -> bytes:
    raw = bytearray(saved(CELL, "WEBP", lossless=True))
    raw[21:25] = (0x0FFFFFFF).to_bytes(4, "little")
    return bytes(raw)


def jxl_strip() -> bytes:
    packed = imagecodecs.jpegxl_encode(np.zeros((4000, 4000, 3), np.uint8), level=100, effort=1)
    return strip_bomb("jpegxl", packed)


Make = Callable[[], bytes]
BOMBS: dict[str, Make] = {
    "png of 900 megapixels": lambda: png_header(30_000, 30_000),
    "png of 48 megapixels in 1 kB": lambda: png_header(8_000, 6_000),
    "jpeg of thousands of scans": many_scans,
    "png text": lambda: with_chunks(saved(CELL, "PNG"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(HUGE)))),
    "png long text": lambda: with_chunks(saved(CELL, "PNG"), (b"tEXt", b"a\0" + b"a" * 2_000_000)),
    "png profile": lambda: with_chunks(saved(CELL, "PNG"), (b"iCCP", b"a\0\0" + zlib.compress(bytes(HUGE)))),
    "png of many chunks": lambda: with_chunks(saved(CELL, "PNG"), *[(b"abCd", b"")] * 110_000),
    "tiff loop": looping_tiff,
    "tiff overlapping strips": overlapping_tiff,
    "tiff of 3,600 megapixels": lambda: patched(saved(CELL, "TIFF"), ImageWidth=60_000, ImageLength=60_000),
    "tiff of 48 megapixels in 50 kB": lambda: patched(
        tiff(ARRAY, compression="lzw"), ImageWidth=8000, ImageLength=6000
    ),
    "tiff deflate strip": lambda: strip_bomb("zlib", zlib.compress(bytes(HUGE // 4))),
    "tiff lzma strip": lambda: strip_bomb("lzma", lzma.compress(bytes(HUGE), preset=0)),
    "tiff jpeg xl strip": jxl_strip,
    "tiff imagej claims": lambda: tiff(ARRAY, description="ImageJ=1.11a\nimages=1000000\nslices=1000000\n"),
    "tiff laughing ome": laughing_ome,
    "jpeg 2000 of 3,600 megapixels": lambda: jpeg2000_header(60_000),
    "jpeg 2000 of 48 megapixels": lambda: jpeg2000_header(6_900),
    "heic of 3,600 megapixels": lambda: heif_header(heif(), 60_000),
    "avif of 3,600 megapixels": lambda: heif_header(saved(CELL, "AVIF"), 60_000),
    "gif of 4,000 megapixels": lambda: gif_header(65_000),
    "gif of 36 megapixels": lambda: gif_header(6_000),
    "bmp of 3,600 megapixels": lambda: bmp_header(60_000),
    "webp of 268 megapixels": webp_header,
    "ppm of 2,500 megapixels": lambda: b"P6 50000 50000 255\n" + bytes(100),
    "ppm plain, endless number": lambda: b"P3 128 128 255\n" + b"1" * 5_000_000,
    "dicom of 4,000 megapixels": lambda: dicom_header(65_000),
}
WITH_METADATA: dict[str, Make] = {  # read in spite of what is beside the pixels
    "torn exif": lambda: saved(CELL, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40)),
    "torn profile": lambda: saved(CELL, "PNG", icc_profile=bytes(200)),
    "large exif": lambda: saved(CELL, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 60_000),
}


def write_bombs(folder: Path) -> list[Path]:
    """Write all bombs under an ending that the uploader takes."""
    paths = []
    for name, make in BOMBS.items():
        paths.append(folder / f"{name.replace(' ', '-').replace(',', '')}.png")
        paths[-1].write_bytes(make())
    return paths
