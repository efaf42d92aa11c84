"""Colours: embedded profiles, PNG's colour chunks, CMYK, palettes and alpha become sRGB on white."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

from zoo.imaging.decode.errors import PictureError

ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
MAX_PROFILE_BYTES = 4_000_000  # of an ICC profile
KEPT_TRANSFORMS = 16
SRGB_GAMMA, GAMMA_TOLERANCE = 0.45455, 0.012
# chromaticities of white, red, green and blue, as in PNG's cHRM
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
BT2020 = (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
CHROMATICITY_TOLERANCE = 0.004
CICP_PRIMARIES = {1: SRGB, 2: SRGB, 9: BT2020, 12: DISPLAY_P3}
CICP_GAMMAS = {4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0}  # other transfer functions are close to sRGB's
CICP_HDR = (16, 18)  # PQ and HLG
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
LEVELS = 4096  # of linear light in the table back to sRGB
ROWS_AT_ONCE = 256

_lock = threading.Lock()
_transforms: OrderedDict[tuple[str, str], ImageCms.ImageCmsTransform | None] = OrderedDict()


def to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert an 8-bit picture of any mode to RGB (sRGB, on white) without metadata; returns it with notes.

    Args:
        image: As Pillow opened it; `info` holds its profile, PNG's `gamma`, `chromaticity`, `srgb` and `cicp`.

    Raises:
        PictureError: The colours are those of a high dynamic range.
    """
    notes: list[str] = []
    info = image.info
    if image.mode == "RGB" and not info.keys() & {"icc_profile", "gamma", "chromaticity", "cicp", "transparency"}:
        return plain(image), notes
    alpha = None
    if image.mode in ALPHA_MODES or "transparency" in info:
        # palettes and L keep a profile of their own kind, which `info` carries on
        grey = image.mode in ("LA", "La", "L", "1")
        full = image.convert("RGBA")
        full.info = info
        alpha = full.getchannel("A")
        image = full.convert("RGB").convert("L") if grey else full.convert("RGB")
        image.info = info
    elif image.mode in ("P", "1"):
        image = image.convert("RGB" if image.mode == "P" else "L")
        image.info = info
    image = _managed(image, notes)
    if alpha is not None:
        image = _on_white(image, alpha, notes)
    return plain(image), notes


def plain(image: Image.Image) -> Image.Image:
    """Copy a picture as RGB without its metadata: names, places and serial numbers end here."""
    copied = image.convert("RGB")
    copied.info = {}
    return copied


def _on_white(image: Image.Image, alpha: Image.Image, notes: list[str]) -> Image.Image:
    lowest, highest = alpha.getextrema()
    if highest == 0:
        notes.append("transparency ignored: it would hide the whole picture")
        return image
    if lowest == 255:
        return image
    notes.append("transparent parts laid on white")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _managed(image: Image.Image, notes: list[str]) -> Image.Image:
    """The picture in sRGB, by the strongest statement: cICP, profile, sRGB, then gamma and chromaticities."""
    info = image.info
    if cicp := info.get("cicp"):
        return _by_cicp(image, cicp, notes)
    if profile := info.get("icc_profile"):
        return _by_profile(image, profile, notes)
    if "srgb" in info or not info.keys() & {"gamma", "chromaticity"}:
        return image.convert("RGB")
    return _by_gamma(image, info.get("gamma"), info.get("chromaticity"), notes)


def _by_cicp(image: Image.Image, cicp: tuple[int, ...], notes: list[str]) -> Image.Image:
    primaries, transfer = cicp[0], cicp[1]
    if transfer in CICP_HDR:
        raise PictureError("The picture has a high dynamic range (HDR). Export it with standard range (sRGB).")
    return _by_gamma(image, CICP_GAMMAS.get(transfer), CICP_PRIMARIES.get(primaries), notes)


def _by_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    transform = _transform(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    if isinstance(transform, str):
        notes.append(transform)
        return image.convert("RGB")
    notes.append("colour profile converted to sRGB")
    made = Image.new("RGB", image.size)
    transform.apply(image, made)
    return made


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """The transform of a profile to sRGB, kept for the next picture; None for sRGB itself, a note if it is unusable."""
    if len(profile) > MAX_PROFILE_BYTES:
        return "colour profile ignored: it is too large"
    key = (hashlib.sha256(profile).hexdigest(), mode)
    with _lock:
        if key in _transforms:
            _transforms.move_to_end(key)
            return _transforms[key]
    made = _make_transform(profile, mode)
    if not isinstance(made, str):
        with _lock:
            _transforms[key] = made
            while len(_transforms) > KEPT_TRANSFORMS:
                _transforms.popitem(last=False)
    return made


def _make_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "srgb" in (given.profile.profile_description or "").lower():
            return None
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.buildTransform(given, srgb, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "colour profile ignored: it is damaged or of another kind of picture"


def _by_gamma(
    image: Image.Image, gamma: float | None, chromaticities: tuple[float, ...] | None, notes: list[str]
) -> Image.Image:
    """The picture from its own gamma and primaries (None: sRGB's)."""
    # a gamma of 0 or far from any display is damage
    if gamma is not None and (not 0.1 <= gamma <= 3 or abs(gamma - SRGB_GAMMA) <= GAMMA_TOLERANCE):
        gamma = None
    matrix = _matrix(chromaticities) if image.mode != "L" else None
    image = image.convert("RGB")
    if gamma is None and matrix is None:
        return image
    notes.append("linear light converted to sRGB" if gamma and abs(gamma - 1) < 0.02 else "colours converted to sRGB")
    levels = np.arange(256) / 255
    linear = (levels ** (1 / gamma) if gamma else _decode_srgb(levels)).astype(np.float32)
    back = np.rint(255 * _encode_srgb(np.arange(LEVELS) / (LEVELS - 1))).astype(np.uint8)
    if matrix is None:
        table = np.rint(255 * _encode_srgb(linear)).astype(np.uint8)
        return image.point(table.tolist() * 3)
    pixels = np.array(image)
    for start in range(0, len(pixels), ROWS_AT_ONCE):
        light = linear[pixels[start : start + ROWS_AT_ONCE]] @ matrix.T
        pixels[start : start + ROWS_AT_ONCE] = back[np.rint(light.clip(0, 1) * (LEVELS - 1)).astype(np.int32)]
    return Image.fromarray(pixels)


def _matrix(chromaticities: tuple[float, ...] | None) -> np.ndarray | None:
    """The matrix from linear light of these primaries to that of sRGB; None where they are sRGB's or nonsense."""
    if chromaticities is None or len(chromaticities) != 8:
        return None
    given = np.array(chromaticities, float)
    if np.abs(given - SRGB).max() < CHROMATICITY_TOLERANCE or (given[1::2] < 0.01).any() or (given > 1).any():
        return None
    try:
        source, white = _to_xyz(given)
        target, d65 = _to_xyz(np.array(SRGB))
        gains = np.diag((BRADFORD @ d65) / (BRADFORD @ white))
        adapted = np.linalg.inv(BRADFORD) @ gains @ BRADFORD
        matrix = np.linalg.inv(target) @ adapted @ source
    except np.linalg.LinAlgError:
        return None
    return matrix.astype(np.float32) if np.isfinite(matrix).all() and np.abs(matrix).max() < 10 else None


def _to_xyz(chromaticities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix from RGB to XYZ, and white in XYZ."""
    x, y = chromaticities[0::2], chromaticities[1::2]
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, primaries = columns[:, 0], columns[:, 1:]
    return primaries * np.linalg.solve(primaries, white), white


def _decode_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encode_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
