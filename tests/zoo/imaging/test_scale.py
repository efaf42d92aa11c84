"""Micrometres a pixel that files of microscopes state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.making import draw_cell
from tests.zoo.imaging.encodings import dicom, tiff
from zoo.imaging.decode import read_picture

PIXELS = np.asarray(draw_cell("neutrophil", 1, (96, 64)))
CENTIMETRE, INCH = 3, 2
STATED: dict[str, tuple[dict[str, Any], float | None]] = {
    "OME": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm"}}, 0.1),
    "OME in nanometres": (
        {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 65, "PhysicalSizeXUnit": "nm"}},
        0.065,
    ),
    "OME without": ({"ome": True, "metadata": {"axes": "YXS"}}, None),
    "ImageJ": ({"imagej": True, "resolution": (8.0, 8.0), "metadata": {"unit": "um"}}, 0.125),
    "ImageJ, with a letter": ({"imagej": True, "resolution": (8.0, 8.0), "metadata": {"unit": "\\u00B5m"}}, 0.125),
    "ImageJ in pixels": ({"imagej": True, "resolution": (1.0, 1.0), "metadata": {"unit": "pixel"}}, None),
    "pixels a centimetre": ({"resolution": (100_000, 100_000), "resolutionunit": CENTIMETRE}, 0.1),
    "a printer's 300 dpi": ({"resolution": (300, 300), "resolutionunit": INCH}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("name", STATED)
def test_a_tiff_file_states_its_scale(name):
    options, expected = STATED[name]
    assert read_picture(tiff(PIXELS, **options), "x.tif").um_per_px == pytest.approx(expected)


@pytest.mark.parametrize(("spacing", "expected"), [([0.0002, 0.0002], 0.2), ([0.5, 0.5], None), (None, None)])
def test_a_dicom_file_states_its_scale(spacing, expected):
    pytest.importorskip("pydicom")
    more = {} if spacing is None else {"PixelSpacing": spacing}
    assert read_picture(dicom(PIXELS, 8, **more), "x.dcm").um_per_px == pytest.approx(expected)


def test_a_description_that_cannot_be_read_states_nothing():
    for description in ("<OME><Pixels PhysicalSizeX='x'/></OME>", "<OME", "<!DOCTYPE a><OME/>"):
        raw = tiff(PIXELS, description=description, metadata=None)
        assert read_picture(raw, "x.ome.tif").um_per_px is None
