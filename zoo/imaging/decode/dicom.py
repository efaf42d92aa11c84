"""DICOM: secondary captures and other colour or grey pictures, by pydicom (the extra `dicom`).

Nothing but pixels leaves this module: names, numbers and dates of a patient stay in the file.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from zoo.imaging.decode.arrays import array_image
from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.formats import WHOLE_SLIDE
from zoo.imaging.decode.headers import check_ratio, check_size
from zoo.imaging.decode.scale import dicom_scale

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
INSTALL = "Reading DICOM needs pydicom: pip install pydicom. Or export the picture as PNG."


def count_frames(raw: bytes) -> int:
    """Count the frames of a file."""
    try:
        import pydicom  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise PictureError(INSTALL) from error
    return int(pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True).get("NumberOfFrames") or 1)


def read_dicom(raw: bytes, page: int | None) -> tuple[Image.Image, int, int, list[str], float | None]:
    """Read a frame.

    Args:
        raw: The file's content.
        page: Number of the frame, from 1; None for the first.

    Returns:
        The picture, the frame, the number of frames, notes, and micrometres a pixel where the file states them.
    """
    try:
        import pydicom  # noqa: PLC0415 (an extra)
        from pydicom.pixels import apply_color_lut, pixel_array  # noqa: PLC0415
    except ImportError as error:
        raise PictureError(INSTALL) from error
    data = pydicom.dcmread(io.BytesIO(raw))
    if data.file_meta.get("MediaStorageSOPClassUID") == SLIDE_CLASS or data.get("SOPClassUID") == SLIDE_CLASS:
        raise PictureError(WHOLE_SLIDE)
    if "PixelData" not in data or not data.get("Rows") or not data.get("Columns"):
        raise PictureError("This DICOM file holds no picture (a report, a waveform or only a header).")
    frames = int(data.get("NumberOfFrames") or 1)
    number = page or 1
    if number > frames:
        raise PictureError(f"There is no page {number}: the file has {frames}.")
    width, height = int(data.Columns), int(data.Rows)
    check_size(width, height)
    channels = int(data.get("SamplesPerPixel") or 1)
    check_ratio(width * height * channels * (int(data.get("BitsAllocated") or 8) // 8), len(raw))
    pixels = pixel_array(data, index=number - 1)
    photometric = str(data.get("PhotometricInterpretation") or "")
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, data)
        stated = None
    else:
        stated = float(2 ** int(data.get("BitsStored") or 8) - 1)
    image, notes = array_image(np.asarray(pixels), stated)
    if photometric == "MONOCHROME1":
        image = Image.eval(image, lambda level: 255 - level)
    return image, number, frames, notes, dicom_scale(data)
