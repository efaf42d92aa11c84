"""One drawn cell in many encodings, good and odd, and files made to exhaust the machine; all by code."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image, ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.making import draw_cell

CELL = draw_cell("neutrophil", size=(128, 128))
ARRAY = np.asarray(CELL)
WIDE = ARRAY.astype(np.uint16) * 257
TWELVE = np.rint(ARRAY / 255 * 4095).astype(np.uint16)
HOT = TWELVE.copy()
HOT[:3, 0] = 65535  # three hot pixels
OPAQUE = np.dstack([ARRAY, np.full(ARRAY.shape[:2], 255, np.uint8)])
NAMES = {"PatientName": "Planted^Person", "PatientID": "PLANTED-4711", "DeviceSerialNumber": "PLANTED-SN"}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **({"photometric": "rgb"} | options))
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """The PNG with chunks after its header."""
    return png[:33] + b"".join(chunk(*one) for one in chunks) + png[33:]


def png16(array: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    return with_chunks(imagecodecs.png_encode(array), *chunks)


def heif(**options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(CELL).save(buffer, quality=95, **options)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, bits: int, photometric: str = "RGB", frames: int = 1, **more: Any) -> bytes:
    """A secondary capture with planted identifiers, and `more` elements."""
    data = Dataset()
    for key, value in (NAMES | more).items():
        setattr(data, key, value)
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[-3:-1] if photometric == "RGB" else pixels.shape[-2:]
    data.SamplesPerPixel = 3 if photometric == "RGB" else 1
    data.PhotometricInterpretation = photometric
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    if frames > 1:
        data.NumberOfFrames = frames
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def smaller_first() -> bytes:
    """A preview before the picture."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.ascontiguousarray(ARRAY[::4, ::4]), photometric="rgb", subfiletype=1)
        writer.write(ARRAY, photometric="rgb")
    return buffer.getvalue()


def colour_table() -> bytes:
    """A palette as ImageJ keeps it beside a single channel, which is then shown in colours."""
    reduced = CELL.quantize(256)
    colours = np.zeros((256, 3), np.uint8)
    stored = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(stored)] = stored
    return tiff(np.asarray(reduced), photometric="minisblack", imagej=True, metadata={"LUTs": [colours.T.copy()]})


def old_palette() -> bytes:
    """A palette with levels of 8 bits in fields of 16, as old programs write it."""
    reduced = CELL.quantize(256)
    colours = np.zeros((3, 256), np.uint16)
    stored = np.array(reduced.getpalette()).reshape(-1, 3).T
    colours[:, : stored.shape[1]] = stored
    return tiff(np.asarray(reduced), photometric="palette", colormap=colours)


def turned(kind: str) -> bytes:
    """The cell stored on its side, with the orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif} | ({"quality": 97} if kind in ("JPEG", "AVIF") else {})
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    return saved(CELL.transpose(Image.Transpose.ROTATE_90), kind, **options)


def linear() -> bytes:
    """The cell in linear light, 16 bit, as gAMA says."""
    levels = ARRAY / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return png16(np.rint(light * 65535).astype(np.uint16), (b"gAMA", struct.pack(">I", 100_000)))


def profiled(kind: str, **options: Any) -> bytes:
    """The cell in a profile with swapped primaries: only who converts it sees the cell."""
    srgb = ImageCms.createProfile("sRGB")
    swapped = swap_primaries(ImageCms.ImageCmsProfile(srgb).tobytes())
    # red and blue change places in the profile, and so in the samples
    return saved(Image.fromarray(ARRAY[..., ::-1].copy()), kind, icc_profile=swapped, **options)


def swap_primaries(profile: bytes) -> bytes:
    changed = bytearray(profile)
    count = struct.unpack_from(">I", profile, 128)[0]
    for place in range(132, 132 + 12 * count, 12):
        name = profile[place : place + 4]
        if name in (b"rXYZ", b"bXYZ"):
            changed[place : place + 4] = b"bXYZ" if name == b"rXYZ" else b"rXYZ"
    return bytes(changed).replace(b"s\0R\0G\0B", b"x\0Y\0Z\0W").replace(b"sRGB", b"xYZW")


def imagej(**options: Any) -> bytes:
    planes = np.moveaxis(ARRAY, -1, 0)
    return tiff(planes, imagej=True, photometric="minisblack", metadata={"axes": "CYX", "mode": "composite"} | options)


def ome(colours: list[int], array: np.ndarray = WIDE) -> bytes:
    metadata = {"axes": "CYX", "Channel": {"Color": colours}}
    return tiff(np.moveaxis(array, -1, 0), ome=True, photometric="minisblack", metadata=metadata)


def pyramid() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(ARRAY, photometric="rgb", subifds=1, tile=(64, 64))
        file.write(ARRAY[::2, ::2], photometric="rgb", subfiletype=1, tile=(64, 64))
    return buffer.getvalue()


def blurred() -> np.ndarray:
    return np.asarray(CELL.resize((16, 16)).resize(CELL.size))


def animated(kind: str, **options: Any) -> bytes:
    black = Image.new("RGB", CELL.size, "black")
    return saved(CELL, kind, save_all=True, append_images=[black, CELL.rotate(90)], **options)


LUTS = [np.stack([np.arange(256) * (n == k) for n in range(3)]).astype(np.uint8) for k in range(3)]
RED, GREEN, BLUE = -16776961, 16711935, 65535  # OME's signed RGBA
RGBA_LOST = (338, 3, 1, 0, True)

Make = Callable[[], bytes]
LOSSLESS: dict[str, Make] = {
    "png": lambda: saved(CELL, "PNG"),
    "png interlaced sRGB chunk": lambda: with_chunks(saved(CELL, "PNG"), (b"sRGB", b"\0")),
    "png opaque alpha": lambda: saved(CELL.convert("RGBA"), "PNG"),
    "png invisible": lambda: saved(Image.fromarray(np.dstack([ARRAY, 0 * ARRAY[..., 0]])), "PNG"),
    "png gamma of sRGB": lambda: with_chunks(saved(CELL, "PNG"), (b"gAMA", struct.pack(">I", 45455))),
    "png cicp sRGB": lambda: with_chunks(saved(CELL, "PNG"), (b"cICP", bytes([1, 13, 0, 1]))),
    "apng": lambda: animated("PNG"),
    "bmp": lambda: saved(CELL, "BMP"),
    "webp lossless": lambda: saved(CELL, "WEBP", lossless=True),
    "webp animated": lambda: animated("WEBP", lossless=True),
    "tiff": lambda: saved(CELL, "TIFF"),
    "tiff lzw": lambda: saved(CELL, "TIFF", compression="tiff_lzw"),
    "tiff packbits": lambda: saved(CELL, "TIFF", compression="packbits"),
    "tiff deflate predictor": lambda: tiff(ARRAY, compression="zlib", predictor=True),
    "tiff tiled": lambda: tiff(ARRAY, tile=(32, 32), compression="lzw"),
    "tiff planes": lambda: tiff(np.moveaxis(ARRAY, -1, 0), planarconfig="separate"),
    "tiff big": lambda: tiff(ARRAY, bigtiff=True),
    "tiff big-endian": lambda: tiff(ARRAY, byteorder=">"),
    "tiff lzma": lambda: tiff(ARRAY, compression="lzma"),
    "tiff zstd": lambda: tiff(ARRAY, compression="zstd"),
    "tiff opaque alpha": lambda: tiff(OPAQUE, extrasamples=["unassalpha"]),
    "tiff fourth channel": lambda: tiff(np.dstack([ARRAY, 0 * ARRAY[..., 0]]), extrasamples=["unspecified"]),
    "tiff pages": lambda: tiff(np.stack([ARRAY, ARRAY // 2])),
    "tiff stack": lambda: tiff(np.stack([blurred(), ARRAY, blurred()]), imagej=True, metadata={"axes": "ZYXS"}),
    "tiff pyramid": pyramid,
    "tiff imagej composite": imagej,
    "tiff imagej luts": lambda: imagej(LUTs=LUTS),
    "tiff ome channels": lambda: ome([RED, GREEN, BLUE], ARRAY),
    "tiff orientation": lambda: tiff(
        np.asarray(CELL.transpose(Image.Transpose.ROTATE_90)), extratags=[(274, 3, 1, 6, True)]
    ),
    "ppm": lambda: saved(CELL, "PPM"),
    "ppm plain": lambda: b"P3 128 128 255\n" + " ".join(map(str, ARRAY.ravel().tolist())).encode(),
    "jpeg 2000": lambda: saved(CELL, "JPEG2000"),
    "png orientation": lambda: turned("PNG"),
    "webp orientation": lambda: turned("WEBP"),
    "png profile": lambda: profiled("PNG"),
    "tiff profile": lambda: profiled("TIFF"),
    "tiff smaller copy first": smaller_first,
    "bmp reserved bytes used": lambda: saved(CELL, "BMP")[:6] + b"\1\2\3\4" + saved(CELL, "BMP")[10:],
    "dicom": lambda: dicom(ARRAY, 8),
    "dicom frames": lambda: dicom(np.stack([ARRAY, ARRAY // 2]), 8, frames=2),
}
LOSSY_OR_DEEP: dict[str, Make] = {
    "jpeg": lambda: saved(CELL, "JPEG", quality=97, subsampling=0),
    "jpeg progressive": lambda: saved(CELL, "JPEG", quality=97, subsampling=0, progressive=True),
    "jpeg orientation": lambda: turned("JPEG"),
    "jpeg profile": lambda: profiled("JPEG", quality=97, subsampling=0),
    "jpeg 12 bit": lambda: imagecodecs.jpeg_encode(TWELVE, bitspersample=12, level=97),
    "png palette": lambda: saved(CELL.quantize(256), "PNG"),
    "gif": lambda: saved(CELL.quantize(256), "GIF"),
    "gif animated": lambda: animated("GIF"),
    "webp lossy": lambda: saved(CELL, "WEBP", quality=97),
    "heic": heif,
    "avif": lambda: saved(CELL, "AVIF", quality=97, subsampling="4:4:4"),
    "avif orientation": lambda: turned("AVIF"),
    "tiff jpeg": lambda: tiff(ARRAY, compression="jpeg", compressionargs={"level": 97}),
    "tiff jpeg xl": lambda: tiff(ARRAY, compression="jpegxl"),
    "tiff jpeg 2000": lambda: tiff(ARRAY, compression="jpeg2000"),
    "png 16 bit": lambda: png16(WIDE),
    "png 12 of 16 bit": lambda: png16(TWELVE),
    "png 10 of 16 bit": lambda: png16(TWELVE >> 2),
    "png 12 bit hot pixels": lambda: png16(HOT),
    "png sBIT 12": lambda: png16(TWELVE, (b"sBIT", bytes([12, 12, 12]))),
    "png linear": linear,
    "tiff 16 bit": lambda: tiff(WIDE),
    "tiff 12 of 16 bit": lambda: tiff(TWELVE),
    "tiff 14 of 16 bit": lambda: tiff(TWELVE * 4),
    "tiff 12 bit hot pixels": lambda: tiff(HOT),
    "tiff stated 12 bit": lambda: tiff(TWELVE, extratags=[(341, 3, 3, (4095, 4095, 4095), True)]),
    "tiff signed 16 bit": lambda: tiff((WIDE.astype(np.int32) - 32768).astype(np.int16)),
    "tiff positive int16": lambda: tiff(TWELVE.astype(np.int16)),
    "tiff imagej table of one channel": colour_table,
    "tiff old palette": old_palette,
    "tiff premultiplied alpha": lambda: tiff(
        np.dstack([WIDE, np.full(WIDE.shape[:2], 65535, np.uint16)]), extrasamples=["assocalpha"]
    ),
    "tiff uint32": lambda: tiff(WIDE.astype(np.uint32)),
    "tiff float 0..1": lambda: tiff((ARRAY / 255).astype(np.float32)),
    "tiff float over": lambda: tiff((ARRAY / 255 * 1.1 - 0.04).astype(np.float32)),
    "tiff float -1..1": lambda: tiff((ARRAY / 127.5 - 1).astype(np.float32)),
    "tiff float 0..255": lambda: tiff(ARRAY.astype(np.float32)),
    "tiff double 0..4095": lambda: tiff(TWELVE.astype(np.float64)),
    "tiff float16": lambda: tiff((ARRAY / 255).astype(np.float16)),
    "tiff 16 bit planes": lambda: tiff(np.moveaxis(WIDE, -1, 0), planarconfig="separate"),
    "tiff ome 16 bit": lambda: ome([RED, GREEN, BLUE]),
    "ppm 12 bit": lambda: b"P6 128 128 4095\n" + TWELVE.astype(">u2").tobytes(),
    "jpeg 2000 16 bit": lambda: imagecodecs.jpeg2k_encode(WIDE, level=0),
    "dicom 12 bit": lambda: dicom(TWELVE, 12),
}
SAID: dict[str, str] = {  # part of a note
    "png 12 of 16 bit": "12 bit",
    "png sBIT 12": "as the file states",
    "tiff stated 12 bit": "as the file states",
    "png linear": "linear light",
    "png profile": "profile",
    "jpeg profile": "profile",
    "png invisible": "transparency ignored",
    "apng": "first frame",
    "gif animated": "first frame",
    "webp animated": "first frame",
    "tiff pages": "page 1 of 2",
    "tiff stack": "slice 2 of 3, the sharpest",
    "tiff pyramid": "level 1 of a pyramid of 2",
    "tiff fourth channel": "fourth channel",
    "tiff imagej luts": "3 channels joined",
    "dicom frames": "page 1 of 2",
    "tiff float -1..1": "-1 to 1",
    "tiff signed 16 bit": "signed 16 bit",
}


def flat(width: int, height: int) -> bytes:
    return saved(Image.new("RGB", (width, height), (200, 10, 30)), "PNG")


def noise(width: int, height: int) -> bytes:
    return saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)), "PNG")


REFUSED: dict[str, tuple[Make, str, str]] = {  # content, file name, sentence
    "one pixel": (lambda: flat(1, 1), "x.png", "only 1×1 pixels"),
    "strip": (lambda: noise(5000, 20), "x.png", "narrow strip"),
    "single colour": (lambda: flat(100, 100), "x.png", "single colour"),
    "empty": (lambda: b"", "x.png", "empty"),
    "text": (lambda: b"just text", "x.png", "not a picture we can read"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "x.png", "git lfs pull"),
    "pdf": (lambda: b"%PDF-1.7", "x.jpg", "PDF"),
    "svg": (lambda: b"<svg xmlns='x'/>", "x.png", "drawing"),
    "zip": (lambda: b"PK\3\4" + bytes(60), "x.tif", "archive"),
    "film": (lambda: b"\0\0\0\x18ftypisom" + bytes(60), "x.heic", "film"),
    "jpeg xl": (lambda: b"\xff\x0a" + bytes(60), "x.jpg", "JPEG XL"),
    "svs name": (lambda: tiff(ARRAY), "slide.svs", "whole slide"),
    "aperio": (lambda: tiff(ARRAY, description="Aperio Image Library v11\nAppMag = 40"), "x.tif", "whole slide"),
    "mrxs": (lambda: saved(CELL, "JPEG"), "slide.mrxs", "whole slide"),
    "czi": (lambda: b"ZISRAWFILE" + bytes(99), "x.tif", "whole slide"),
    "seven channels": (
        lambda: tiff(np.zeros((64, 64, 7), np.uint8), photometric="minisblack", planarconfig="contig"),
        "x.tif",
        "7 channels",
    ),
    "not a number": (lambda: tiff(np.full((64, 64, 3), np.nan, np.float32)), "x.tif", "no finite value"),
    "complex": (
        lambda: tiff(np.zeros((64, 64), np.complex64), photometric="minisblack"),
        "x.tif",
        "not supported",
    ),
    "hdr": (lambda: with_chunks(saved(CELL, "PNG"), (b"cICP", bytes([9, 16, 0, 1]))), "x.png", "HDR"),
    "no such page": (lambda: tiff(np.stack([ARRAY, ARRAY])), "x.tif#page=3", "no page 3"),
    "cut": (lambda: saved(CELL, "JPEG")[:900], "x.jpg", "cut short"),
}
