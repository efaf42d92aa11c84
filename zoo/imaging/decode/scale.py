"""Micrometres a pixel, as files of microscopes state them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    import tifffile

MIN_UM, MAX_UM = 0.005, 10.0  # a pixel, of pictures in which cells can be seen; prints at 300 dpi state 85
UNITS = {
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
}
INCH = 25_400.0  # µm
PER_UNIT = {2: INCH, 3: UNITS["cm"]}  # TIFF's ResolutionUnit
X_RESOLUTION, RESOLUTION_UNIT = 282, 296
MAX_XML = 5_000_000  # characters of an OME description that is read
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")  # as ImageJ writes µ


def plausible(um_per_px: float | None) -> float | None:
    """The scale where a microscope can have it, else None."""
    return um_per_px if um_per_px and math.isfinite(um_per_px) and MIN_UM <= um_per_px <= MAX_UM else None


def tiff_scale(file: tifffile.TiffFile) -> float | None:
    """Scale of a TIFF file's pages at their full size, by OME, ImageJ or TIFF's own resolution."""
    if file.is_ome and file.ome_metadata:
        return plausible(_ome(str(file.ome_metadata)))
    page: Any = file.pages[0]
    resolution = page.tags.get(X_RESOLUTION)
    if resolution is None or not isinstance(resolution.value, tuple) or not resolution.value[0]:
        return None
    units, pixels = resolution.value[1], resolution.value[0]
    if file.is_imagej:
        name = ESCAPED.sub(lambda found: chr(int(found[1], 16)), str((file.imagej_metadata or {}).get("unit", "")))
        factor = UNITS.get(name.strip().lower())
    else:
        unit = page.tags.get(RESOLUTION_UNIT)
        factor = PER_UNIT.get(int(unit.value) if unit is not None else 0)
    return plausible(factor * units / pixels) if factor else None


def dicom_scale(data: Any) -> float | None:
    """Scale of a DICOM data set, whose spacings are millimetres."""
    spacing = data.get("PixelSpacing")
    for shared in data.get("SharedFunctionalGroupsSequence") or ():
        for measures in shared.get("PixelMeasuresSequence") or ():
            spacing = spacing or measures.get("PixelSpacing")
    try:
        return plausible(1000 * float(spacing[1])) if spacing else None
    except (TypeError, ValueError, IndexError):
        return None


def _ome(description: str) -> float | None:
    if len(description) > MAX_XML or "<!DOCTYPE" in description:  # entities could expand without end
        return None
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Pixels" and element.get("PhysicalSizeX"):
            try:
                return float(element.get("PhysicalSizeX", "")) * UNITS[element.get("PhysicalSizeXUnit", "µm")]
            except (ValueError, KeyError):
                return None
    return None
