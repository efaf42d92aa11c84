"""Corruptions of pictures: those that MedMNIST-C defines for blood cells, at five severities, and one strong shift.

Kinds, severities and the size they apply to (224 pixels) are those of medmnistc 0.1.0, `bloodmnist` (Di Salvo et al.
2024, arXiv:2406.17536; https://github.com/francescodisalvo05/medmnistc-api). The package itself needs ImageMagick and
older versions of libraries that the app uses, and unpickles its ink marks; so the kinds are computed here with Pillow
and OpenCV, and the ink marks are drawn. `benchmarks/corruptions.py` compares both where the package can be had.
Randomness follows from the picture's name: a picture is corrupted alike on every machine and for every model.

Adding a corruption is adding a function with the decorator `corruption`, which names the set that it belongs to. A
benchmark that asks for this set finds it. Published sets stay as they are: their scores would change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from zoo.benchmarks.shift import shift
from zoo.data import Source
from zoo.lazy import lazy_module

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_module("cv2")

SIDE = 224  # pixels of the shorter side that the severities are meant for
SEVERITIES = (1, 2, 3, 4, 5)
CLEAN, SHIFTED = "clean", "shifted"
BLOOD = "blood"  # the set of MedMNIST-C's kinds
MARK = "#"  # between a picture's name and its corruption: cell.png#bubble-3
SMALL_INK, LARGE_INK = 24, 32  # pixels
ALEXNET_CLEAN = 0.018369282094266692

Setting = tuple[str, int]  # kind and severity
Change = Callable[[Image.Image, Any, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Kind:
    """A corruption, its name for people, its five severities, and the error that MedMNIST-C reports of AlexNet.

    `alexnet` is the balanced error in the mean over severities on BloodMNIST's test set (medmnistc's baselines); None
    for corruptions that MedMNIST-C has not.
    """

    title: str
    apply: Change
    severities: tuple[Any, ...]
    alexnet: float | None = None


KINDS: dict[str, Kind] = {}
SETS: dict[str, tuple[Setting, ...]] = {SHIFTED: ((SHIFTED, 1),)}  # what becomes of each picture of a benchmark
CREDITS = {BLOOD: "corruptions after MedMNIST-C, arXiv:2406.17536"}


def corruption(
    name: str, title: str, severities: tuple[Any, ...], alexnet: float | None = None, in_set: str = ""
) -> Callable[[Change], Change]:
    """Register a function (picture, severity's value, random numbers) → picture as a corruption of the set `in_set`.

    Args:
        name: Its name in prediction tables; letters and underscores.
        title: Its name for people.
        severities: One value for each of the five severities, mildest first.
        alexnet: AlexNet's balanced error, see `Kind`.
        in_set: The set that a benchmark asks for by `corruptions`; by default MedMNIST-C's where AlexNet's error is
            known, else one of this name. A new set begins with clean pictures.

    Raises:
        ValueError: If the name is taken, or there are not five severities.
    """
    if name in KINDS or name in (CLEAN, SHIFTED):
        raise ValueError(f"There is a corruption called {name} already.")
    if len(severities) != len(SEVERITIES):
        raise ValueError(f"{name} has {len(severities)} severities; {len(SEVERITIES)} are needed.")

    chosen = in_set or (BLOOD if alexnet is not None else name)

    def register(change: Change) -> Change:
        KINDS[name] = Kind(title, change, severities, alexnet)
        SETS[chosen] = (*SETS.get(chosen, ((CLEAN, 0),)), *((name, severity) for severity in SEVERITIES))
        return change

    return register


def statistic_of(name: str) -> str:
    """The score that sums up a benchmark whose pictures are corrupted by the set `name` ("" for clean pictures)."""
    corrupted = any(kind in KINDS for kind, _ in SETS.get(name, ()))
    return "corruption_error" if corrupted else "balanced_accuracy"


@corruption("pixelate", "Pixelation", (0.6, 0.5, 0.4, 0.3, 0.25), 0.05975618949678589)
def pixelate(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    """Fewer pixels: `share` of them a side."""
    small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BOX)


@corruption("jpeg_compression", "JPEG compression", (50, 30, 15, 10, 7), 0.13976187053705183)
def jpeg(image: Image.Image, quality: int, _: np.random.Generator) -> Image.Image:
    """Strong JPEG compression."""
    stored = BytesIO()
    image.save(stored, "JPEG", quality=quality)
    return Image.open(stored).convert("RGB")


@corruption("defocus_blur", "Out of focus", ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)), 0.22399795597780647)
def defocus(image: Image.Image, given: tuple[int, float], _: np.random.Generator) -> Image.Image:
    """Out of focus: a disc of a radius in pixels, its edge softened."""
    radius, soft = given
    reach = np.arange(-8, 9)
    disc = (reach[None] ** 2 + reach[:, None] ** 2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disc / disc.sum(), (3, 3), soft)
    return _picture(cv2.filter2D(np.asarray(image) / 255.0, -1, kernel) * 255)


@corruption("motion_blur", "Motion blur", ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)), 0.1845192137218041)
def motion(image: Image.Image, given: tuple[int, float], random: np.random.Generator) -> Image.Image:
    """The stage moved: half a Gaussian of a reach and a deviation in pixels, as ImageMagick has it."""
    radius, deviation = given
    reach = 2 * radius + 1
    angle = np.deg2rad(random.uniform(-45, 45))
    steps = np.arange(reach)
    shares = np.exp(-(steps**2) / (2 * deviation**2))
    x, y = np.ceil(steps * np.cos(angle) - 0.5).astype(int), np.ceil(steps * np.sin(angle) - 0.5).astype(int)
    kernel = np.zeros((2 * reach - 1, 2 * reach - 1), np.float32)
    np.add.at(kernel, (y + reach - 1, x + reach - 1), shares / shares.sum())
    return _picture(cv2.filter2D(np.asarray(image, np.float32), -1, kernel, borderType=cv2.BORDER_REPLICATE))


@corruption("brightness_down", "Too dark", (0.9, 0.8, 0.7, 0.6, 0.5), 0.0790077546902872)
@corruption("brightness_up", "Too bright", (1.1, 1.2, 1.3, 1.35, 1.4), 0.06946294328845175)
def brightness(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    """More or less light; decorators apply from the last, so that too bright comes first in the set."""
    return ImageEnhance.Brightness(image).enhance(factor)


@corruption("contrast_down", "Less contrast", (0.9, 0.8, 0.7, 0.6, 0.5), 0.07966068499560328)
@corruption("contrast_up", "More contrast", (1.1, 1.15, 1.2, 1.25, 1.3), 0.05215362284240639)
def contrast(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    """More or less contrast around the picture's mean grey."""
    return ImageEnhance.Contrast(image).enhance(factor)


@corruption("saturate", "Deeper stain", (0.05, 0.10, 0.15, 0.17, 0.20), 0.03478558170020538)
def saturate(image: Image.Image, more: float, _: np.random.Generator) -> Image.Image:
    """A deeper stain: saturation raised by `more`."""
    colours = cv2.cvtColor(np.asarray(image, np.float32) / 255, cv2.COLOR_RGB2HSV)
    colours[..., 1] = np.clip(colours[..., 1] + more, 0, 1)
    return _picture(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * 255)


@corruption(
    "stain_deposit",
    "Stain deposits",
    ((1, SMALL_INK), (2, SMALL_INK), (3, SMALL_INK), (3, SMALL_INK), (3, LARGE_INK)),
    0.18536119379858546,
)
def stain_deposit(image: Image.Image, given: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Up to a number of black blots of a size in pixels."""
    most, size = given
    pixels = np.asarray(image, np.float32).copy()
    for _ in range(int(random.integers(1, most, endpoint=True))):
        left, top = (int(random.integers(10, length - size - 10, endpoint=True)) for length in image.size)
        pixels[top : top + size, left : left + size] *= 1 - _blot(size, random)[..., None]
    return _picture(pixels)


@corruption("bubble", "Bubbles", ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)), 0.12898833684644578)
def bubble(image: Image.Image, given: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Bright discs of up to a radius in pixels, seven or more of them, half transparent, with a rim."""
    largest, most = given
    veil = Image.new("RGBA", image.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(veil)
    for _ in range(int(random.integers(7, most, endpoint=True))):
        radius = int(random.integers(3, largest, endpoint=True))
        x, y = (int(random.integers(radius, length - radius, endpoint=True)) for length in image.size)
        for reach, alpha in ((radius + 2, 130), (radius, 100)):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=(255, 255, 255, alpha))
    found = image.copy()
    found.paste(veil, (0, 0), veil)
    return found


@dataclass(frozen=True)
class CorruptedSource:
    """A picture of a source, corrupted."""

    source: Source
    file: str
    kind: str
    severity: int

    def content(self) -> bytes:
        """Stored content of the picture itself."""
        return self.source.content()

    def image(self) -> Image.Image:
        """The corrupted picture, its shorter side SIDE pixels long."""
        return corrupt(self.source.image(), self.file, self.kind, self.severity)


def corrupt(image: Image.Image, file: str, kind: str, severity: int) -> Image.Image:
    """An RGB picture brought to SIDE and corrupted; `file` is its name, which the randomness follows from.

    Raises KeyError for an unknown kind and IndexError for a severity that is not 1 to 5.
    """
    scale = SIDE / min(image.size)
    sized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if kind == CLEAN:
        return sized
    digest = hashlib.sha256(corrupted_name(file, kind, severity).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    if kind == SHIFTED:
        return shift(sized, random)
    if severity not in SEVERITIES:
        raise IndexError(f"There is no severity {severity}; choose 1 to 5.")
    found = KINDS[kind]
    return found.apply(sized, found.severities[severity - 1], random)


def corrupted_name(file: str, kind: str, severity: int) -> str:
    """Name of a corrupted picture in a prediction table."""
    return f"{file}{MARK}{kind}-{severity}"


def split_name(name: str) -> tuple[str, str, int]:
    """File, kind and severity of `corrupted_name`; a name without a corruption is a clean picture's."""
    file, mark, rest = name.rpartition(MARK)
    kind, _, severity = rest.rpartition("-")
    known = mark and (kind in KINDS or kind in (CLEAN, SHIFTED)) and severity.isdecimal()
    return (file, kind, int(severity)) if known else (name, CLEAN, 0)


def _blot(size: int, random: np.random.Generator) -> np.ndarray:
    """Darkness 0..1 (size, size) of an ink blot: a ragged disc that fills about six tenths of its square."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = size / 2 * (0.82 + 0.16 * np.sin(angles * random.integers(2, 5) + random.uniform(0, 6)))
    reach *= 1 - 0.12 * random.random(24)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] + size / 2
    drawn = np.zeros((size, size), np.float32)
    cv2.fillPoly(drawn, [points.round().astype(np.int32)], 1.0)
    return cv2.GaussianBlur(drawn, (3, 3), 0)


def _picture(pixels: np.ndarray) -> Image.Image:
    # cut off, not rounded, as the package does
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
