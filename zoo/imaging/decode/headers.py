"""Headers, checked before any pixel is decoded: size, scans, chunks, directories and compression ratio."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from zoo.imaging.decode import formats
from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import Format
from zoo.imaging.decode.tiff.directories import check_directories
from zoo.limits import JPEG_SCANS, PICTURE_MEGAPIXELS, PICTURE_RATIO, LimitError

SMALLER = "Scale it down or cut the cell out."
DAMAGED = "The file is damaged: its header makes no sense. Copy or export it again."
SMALL_BYTES = 8_000_000  # of a decoded picture: no ratio is dangerous below
MIN_SIDE = 8  # pixels
MAX_ASPECT = 20  # longer over shorter side
CHEAP_SCANS = 400  # megapixels times scans of a JPEG that are decoded without a worker
MAX_PNG_TEXT = 1_000_000  # bytes of one text, profile or unknown chunk
MAX_PNG_CHUNKS = 100_000
MAX_BOXES = 4096
START_OF_SCAN = re.compile(rb"\xff\xda\0")  # FF inside data is followed by 00
START_OF_FRAME = tuple(range(0xC0, 0xD0))
NO_FRAME = (0xC4, 0xC8, 0xCC)  # Huffman and arithmetic tables, and a reserved marker
ALONE = (0, 1, *range(0xD0, 0xD9))  # markers without a segment
BASELINE_FRAMES = (0xC0, 0xC1, 0xC2)


@dataclass(frozen=True)
class Header:
    """The facts that a file declares.

    Attributes:
        width: Width in pixels; 0 where only the decoder knows it.
        height: Height in pixels.
        bits: Bits of a sample.
        worker: Whether it must be decoded in a worker.
        sample_bits: Significant bits that PNG's sBIT states; None without.
        cicp: PNG's cICP; None without.
        frames: Number of frames of an animated PNG.
        pixels: Number of pixels that a worker must have time and memory for, where it is not width × height.
    """

    width: int
    height: int
    bits: int = 8
    worker: bool = False
    sample_bits: int | None = None
    cicp: tuple[int, ...] | None = None
    frames: int = 1
    pixels: int = 0

    @property
    def cost(self) -> int:
        """Number of pixels to plan time and memory for."""
        return self.pixels or self.width * self.height


def read_header(raw: bytes, kind: Format) -> Header:
    """Read and check the header of a file.

    Raises:
        PictureError: The picture is too large or too small, or the file is damaged or made to exhaust the machine.
    """
    try:
        header = READERS[kind.name](raw)
    except (struct.error, IndexError, ValueError, zlib.error) as error:
        if isinstance(error, PictureError | LimitError):
            raise
        raise PictureError(DAMAGED) from error
    if header.width or header.height:
        check_size(header.width, header.height)
        check_ratio(header.width * header.height * 3 * max(1, header.bits // 8), len(raw))
    return header


def check_size(width: int, height: int) -> None:
    """Refuse pictures that are too large, too small or a strip. Raises PictureError."""
    if width * height > 1_000_000 * PICTURE_MEGAPIXELS.value:
        raise PictureError(
            f"The picture has {width:,}×{height:,} = {width * height / 1e6:.0f} megapixels, more than the "
            f"{PICTURE_MEGAPIXELS.value} megapixels accepted. {SMALLER}"
        )
    if width < MIN_SIDE or height < MIN_SIDE:
        raise PictureError(f"The picture has only {width:,}×{height:,} pixels, too few to show a cell.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(f"The picture has {width:,}×{height:,} pixels, a narrow strip. Cut out one cell or field.")


def check_ratio(decoded: int, stored: int) -> None:
    """Refuse a file that declares far more pixels than its bytes can hold. Raises PictureError."""
    if decoded > SMALL_BYTES and decoded > PICTURE_RATIO.value * stored:
        raise PictureError(
            f"The file declares {decoded / 1e6:.0f} MB of pixels but holds {stored / 1e3:.0f} kB: it is damaged or "
            "made to exhaust the machine. Export it again."
        )


def _jpeg(raw: bytes) -> Header:
    marker, body = _start_of_frame(raw)
    bits, height, width = struct.unpack_from(">BHH", body)
    limit = JPEG_SCANS.value
    scans = sum(1 for _ in islice(START_OF_SCAN.finditer(raw), limit + 1))
    if scans > limit:
        raise PictureError(
            f"This JPEG has more than {limit} scans; usual ones have at most 20. It is damaged or made to exhaust the "
            "machine. Export it again."
        )
    slow = width * height / 1e6 * scans > CHEAP_SCANS
    return Header(width, height, bits, worker=slow or bits != 8 or marker not in BASELINE_FRAMES)


def _start_of_frame(raw: bytes) -> tuple[int, bytes]:
    place = 2
    while True:
        while raw[place] == 0xFF and raw[place + 1] == 0xFF:
            place += 1
        if raw[place] != 0xFF:
            # Pillow skips stray bytes between segments; so do we
            place = raw.index(b"\xff", place)
            continue
        marker = raw[place + 1]
        if marker in START_OF_FRAME and marker not in NO_FRAME:
            return marker, raw[place + 4 : place + 12]
        if marker in ALONE:
            place += 2
            continue
        if marker in (0xD9, 0xDA):
            raise ValueError("no frame")
        place += 2 + int.from_bytes(raw[place + 2 : place + 4], "big")


def png_chunks(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of each chunk of a PNG; ends where the file does."""
    place = 8
    for _ in range(MAX_PNG_CHUNKS):
        if place + 8 > len(raw):
            return
        length = int.from_bytes(raw[place : place + 4], "big")
        kind = raw[place + 4 : place + 8]
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += 12 + length
    raise PictureError("This PNG has far too many chunks. It is damaged or made to exhaust the machine.")


def _png(raw: bytes) -> Header:
    width, height, bits, _ = struct.unpack_from(">IIBB", raw, 16)
    stated, cicp, frames = None, None, 1
    for kind, start, length in png_chunks(raw):
        body = raw[start : start + min(length, 64)]
        if kind == b"sBIT":
            stated = max(body, default=None)
        elif kind == b"cICP" and length == 4:
            cicp = tuple(body)
        elif kind == b"acTL":
            frames = int.from_bytes(body[:4], "big")
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and (
            length > MAX_PNG_TEXT or _unpacks_too_far(raw[start : start + length])
        ):
            raise PictureError("This PNG holds a giant text beside the picture. Export it again without metadata.")
        elif kind == b"iCCP" and (length > MAX_PNG_TEXT or _unpacks_too_far(raw[start : start + length])):
            raise PictureError("This PNG holds a giant colour profile. Export it again without metadata.")
    return Header(width, height, bits, bits > 8, stated, cicp, frames)


def _unpacks_too_far(body: bytes) -> bool:
    """Whether the zlib stream in a text or profile chunk unpacks to more than a chunk may hold."""
    start = body.find(b"\x78")  # zlib's first byte at the usual window size
    while 0 <= start < 200:
        try:
            if len(zlib.decompressobj().decompress(body[start:], MAX_PNG_TEXT + 1)) > MAX_PNG_TEXT:
                return True
        except zlib.error:
            pass
        start = body.find(b"\x78", start + 1)
    return False


def _bmp(raw: bytes) -> Header:
    length = struct.unpack_from("<I", raw, 14)[0]
    if length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
        return Header(width, height)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", raw, 18)
    # run-length coding is decoded by Pillow in Python
    return Header(abs(width), abs(height), worker=compression in (1, 2) or bits not in (1, 4, 8, 16, 24, 32))


def _gif(raw: bytes) -> Header:
    return Header(*struct.unpack_from("<HH", raw, 6))


def _webp(raw: bytes) -> Header:
    kind = raw[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(raw[place : place + 3], "little") for place in (24, 27))
    elif kind == b"VP8L":
        packed = int.from_bytes(raw[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", raw, 26))
    return Header(width, height)


def _boxes(raw: bytes) -> Header:
    """The largest picture that an ISO media file (HEIC, AVIF) declares."""
    sizes, place = [(0, 0)], raw.find(b"ispe")
    while place >= 0 and len(sizes) < MAX_BOXES:
        if place + 16 <= len(raw):
            sizes.append(struct.unpack_from(">II", raw, place + 8))
        place = raw.find(b"ispe", place + 4)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Header(width, height, worker=True)


def _jpeg2000(raw: bytes) -> Header:
    place = raw.index(b"\xff\x51")
    _, _, right, bottom, left, top, tile_width, tile_height, _, _, channels = struct.unpack_from(
        ">HHIIIIIIIIH", raw, place + 2
    )
    bits = max((depth & 0x7F) + 1 for depth in raw[place + 40 : place + 40 + 3 * min(channels, 4) : 3])
    width, height = right - left, bottom - top
    tiles = -(-right // max(tile_width, 1)) * -(-bottom // max(tile_height, 1))
    if channels > 4 or tiles > 65_535:
        raise PictureError(f"This JPEG 2000 file has {channels:,} channels and {tiles:,} tiles. Export it as PNG.")
    return Header(width, height, bits, worker=True)


def _tiff(raw: bytes) -> Header:
    """The largest page within the limit, else the smallest: of a pyramid, one level is enough."""
    sizes = [size for size in check_directories(raw) if all(size)]
    if not sizes:
        raise ValueError("no page")
    limit = 1_000_000 * PICTURE_MEGAPIXELS.value
    sizes.sort(key=lambda size: size[0] * size[1])
    fitting = [size for size in sizes if size[0] * size[1] <= limit]
    if not fitting:
        return Header(0, 0, worker=True)  # the reader says what it is
    pixels = fitting[-1][0] * fitting[-1][1]
    return Header(0, 0, worker=True, pixels=pixels)


def _elsewhere(raw: bytes) -> Header:
    """No header of its own to check: the worker reads it with a limit of time and memory."""
    return Header(0, 0, worker=True, pixels=len(raw))


READERS: Mapping[str, Callable[[bytes], Header]] = {
    formats.JPEG.name: _jpeg,
    formats.PNG.name: _png,
    formats.BMP.name: _bmp,
    formats.GIF.name: _gif,
    formats.WEBP.name: _webp,
    formats.HEIC.name: _boxes,
    formats.AVIF.name: _boxes,
    formats.JPEG2000.name: _jpeg2000,
    formats.TIFF.name: _tiff,
    formats.PNM.name: _elsewhere,
    formats.DICOM.name: _elsewhere,
}
