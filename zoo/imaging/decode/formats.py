"""The formats of pictures: one list, from which the uploader, the commands, the readers and the documents are made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

NAMES = "PNG, JPEG or TIFF"  # what other programs are asked to export
EXPORT = "Open it in its viewer (or QuPath, Fiji) and export one region of cells as PNG or TIFF."
HEAD_BYTES = 512  # enough for every signature


@dataclass(frozen=True)
class Format:
    """A format that we read.

    Attributes:
        name: Its name for people.
        suffixes: Usual endings of file names, lower case. The contents decide, whatever the ending.
        signature: Whether a file that begins with these bytes is of this format.
        bounded: Whether Pillow's decoder stays within time and memory that the header allows to foresee; others run in
            a decode worker.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: Callable[[bytes], bool]
    bounded: bool = False


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginnings)


def _brand(*brands: bytes) -> Callable[[bytes], bool]:
    """Whether an ISO base media file names one of these brands; the main one decides, then the compatible ones."""

    def matches(head: bytes) -> bool:
        if head[4:8] != b"ftyp":
            return False
        length = min(int.from_bytes(head[:4], "big"), len(head))
        named = [head[8:12], *(head[place : place + 4] for place in range(16, length, 4))]
        first = next((brand for brand in named if brand in AVIF_BRANDS + HEIF_BRANDS), b"")
        if b"avif" in named:  # AVIF files may name the general brand mif1 first
            first = b"avif"
        return first in brands

    return matches


AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF
JPEG2000_MAGIC = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
PNM_START = re.compile(rb"P[1-6][\s#]")

JPEG = Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), _starts(b"\xff\xd8\xff"), bounded=True)
PNG = Format("PNG", (".png", ".apng"), _starts(b"\x89PNG\r\n\x1a\n"), bounded=True)
BMP = Format("BMP", (".bmp", ".dib"), lambda head: head[:2] == b"BM" and head[14:18] in BMP_HEADERS, bounded=True)
GIF = Format("GIF", (".gif",), _starts(b"GIF87a", b"GIF89a"), bounded=True)
WEBP = Format("WebP", (".webp",), lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", bounded=True)
TIFF = Format("TIFF", (".tif", ".tiff"), _starts(*TIFF_MAGIC))
HEIC = Format("HEIC", (".heic", ".heif", ".hif"), _brand(*HEIF_BRANDS))
AVIF = Format("AVIF", (".avif",), _brand(*AVIF_BRANDS))
JPEG2000 = Format("JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf"), _starts(*JPEG2000_MAGIC))
PNM = Format("PNM", (".pnm", ".ppm", ".pgm", ".pbm"), lambda head: PNM_START.match(head) is not None)
DICOM = Format("DICOM", (".dcm", ".dicom"), lambda head: head[128:132] == b"DICM")

FORMATS = (JPEG, PNG, BMP, GIF, WEBP, TIFF, HEIC, AVIF, JPEG2000, PNM, DICOM)
SUFFIXES = tuple(suffix for one in FORMATS for suffix in one.suffixes)
LISTED = ", ".join(one.name for one in FORMATS[:-1]) + f" or {FORMATS[-1].name}"

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".ndpis", ".mrxs", ".czi", ".scn", ".bif", ".vms", ".vmu", ".vsi", ".lif", ".nd2", ".svslide",
    ".isyntax", ".zvi",
)  # fmt: skip
SLIDE_MAGIC = (b"ZISRAWFILE", b"\xda\xce\xbe\x0a", b"p\0\0\0*")  # CZI, ND2, LIF
WHOLE_SLIDE = f"This is a whole slide or a microscope's own file, not a picture of cells. {EXPORT}"
OTHER_FILES: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"%PDF",), "This is a PDF document. Export the picture from it as PNG."),
    ((b"<?xml", b"<svg", b"<!DO", b"<htm", b"<HTM"), "This is a web page or drawing (SVG, HTML), not a picture."),
    ((b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ"), "This is an archive. Unpack it first."),
    ((b"version https://git-lfs",), "This is a pointer of Git LFS, not the picture itself. Run `git lfs pull` first."),
    ((b"8BPS",), "This is a Photoshop file. Export it as PNG or TIFF."),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL "), "This is a JPEG XL file. Export it as PNG or JPEG."),
    ((b"\xff\xd8\xff\xf7",), "This is a JPEG-LS file. Export it as PNG or JPEG."),
    ((b"II*\0\x10\0\0\0CR", b"IIRO", b"FUJIFILM", b"IIU\0"), "This is a camera's raw file. Export it as PNG or JPEG."),
)


def find_format(raw: bytes) -> Format | None:
    """Find the format of a file by its contents; None if we do not read it."""
    head = raw[:HEAD_BYTES]
    return next((one for one in FORMATS if one.signature(head)), None)


def format_called(name: str) -> Format:
    """Find a format by its name. Raises StopIteration if there is none."""
    return next(one for one in FORMATS if one.name == name)


def refusal(raw: bytes, name: str) -> str | None:
    """Say why a file is refused whose contents or name show that it is of a kind we do not read; None if not."""
    if name.lower().endswith(SLIDE_SUFFIXES) or raw.startswith(SLIDE_MAGIC):
        return WHOLE_SLIDE
    for beginnings, sentence in OTHER_FILES:
        if raw.startswith(beginnings):
            return sentence
    if raw[4:8] == b"ftyp" and find_format(raw) is None:
        return "This is a film. Export one frame of it as PNG."
    return None
