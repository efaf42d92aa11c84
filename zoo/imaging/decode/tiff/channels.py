"""Colours of fluorescence channels, as ImageJ and OME store them, and their sum as RGB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET  # expat refuses exploding entities, and files run in a worker

import numpy as np

from zoo.imaging.decode.errors import PictureError
from zoo.imaging.decode.ranges import find_range, to_8bit

IMAGEJ_ORDER = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0))
LIST_END = "}Channel"

Table = np.ndarray  # (256, 3) uint8: the colour of each level of a channel


def blend(planes: Sequence[np.ndarray], tables: Sequence[Table]) -> tuple[np.ndarray, list[str]]:
    """Add channels (H, W) in their colours; returns RGB uint8 with notes. All channels share one range."""
    found = find_range(np.stack([plane[::2, ::2] for plane in planes]))
    total = np.zeros((*planes[0].shape, 3), np.uint16)
    for plane, table in zip(planes, tables, strict=True):
        total += table[to_8bit(plane, found)]
    notes = [f"{len(planes)} channels joined in their colours"]
    return np.minimum(total, 255).astype(np.uint8), notes + ([found.words] if found.words else [])


def imagej_tables(metadata: Mapping[str, Any], count: int) -> list[Table]:
    """Tables of an ImageJ composite: its LUTs, else red, green, blue and so on, as ImageJ shows them.

    Raises:
        PictureError: There are more channels than colours.
    """
    stored = metadata.get("LUTs")
    if isinstance(stored, list) and len(stored) >= count:
        tables = [np.asarray(table, np.uint8) for table in stored[:count]]
        if all(table.shape == (3, 256) for table in tables):
            return [table.T for table in tables]
    return _default_tables(count)


def ome_tables(description: str, count: int) -> list[Table]:
    """Tables of OME channels: their `Color`; without one, three channels are red, green and blue.

    Raises:
        PictureError: The channels have no colours.
    """
    try:
        root = ET.fromstring(description)
    except ET.ParseError as error:
        raise PictureError("The OME description of this TIFF is damaged. Export it as an RGB TIFF.") from error
    colours = [element.get("Color") for element in root.iter() if element.tag.endswith(LIST_END)][:count]
    known = [_ome_colour(colour) for colour in colours if colour is not None]
    if len(known) == count and len(set(known)) > 1:
        return [_ramp(colour) for colour in known]
    return _default_tables(count)


def _default_tables(count: int) -> list[Table]:
    if count > len(IMAGEJ_ORDER):
        raise PictureError(f"This TIFF has {count} channels without colours. Export it as RGB.")
    return [_ramp(colour) for colour in IMAGEJ_ORDER[:count]]


def _ome_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of OME's signed 32-bit RGBA."""
    try:
        value = int(text) & 0xFFFFFFFF
    except ValueError:
        return (255, 255, 255)
    return value >> 24, value >> 16 & 255, value >> 8 & 255


def _ramp(colour: tuple[int, int, int]) -> Table:
    return np.rint(np.arange(256)[:, None] * (np.array(colour) / 255)).astype(np.uint8)
