"""Which random changes does training make to a picture? The only place for training transforms.

Geometry and colours are drawn as torchvision draws them and done by OpenCV on bytes, one warp for all of the geometry:
six times as fast, which two cores that also train feel. All else is torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from training.recipe import Augment
from zoo.imaging.localise import ROOM, empty_slide, find_cell

# stain vectors of haematoxylin, eosin and the residual (Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291-299)
HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
FAINT = 1e-3  # least transmitted light, so that its logarithm is finite
TIGHT = (1.0, 1.4)  # sides of a cell's box that a tight frame is wide
BEST = 95  # JPEG quality beyond which nothing is seen of it
RIM = 0.02  # of the side over which a cell goes over into another picture's surroundings
LIGHTS = (0.6, 1.6)  # factors by which one slide's light may become another's
SPREADS = (0.5, 2.0)  # factors by which one picture's contrast may become another's
BLURRED = 0.3  # share of pictures out of focus
SHARP = 0.1  # pixels of blur that cannot be seen
MUCH = 1.5  # times smaller a picture may become in one bilinear warp before it is averaged first


class HedJitter(v2.Transform):
    """Stain jitter of a float (3, h, w) picture in 0..1: each stain's density × (1 ± strength) ± strength.

    Tellez et al. 2018, doi:10.1109/TMI.2018.2820199, with the stain matrix of Ruifrok & Johnston 2001.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.stains = HED / HED.norm(dim=1, keepdim=True)
        self.inverse = torch.linalg.inv(self.stains)

    def make_params(self, flat_inputs: list) -> dict[str, torch.Tensor]:
        """Factor and shift of each stain."""
        factor = 1 + self.strength * (2 * torch.rand(3) - 1)
        # densities of one unit are dark: the shift is a tenth of the factor's range
        return {"factor": factor, "shift": 0.1 * self.strength * (2 * torch.rand(3) - 1)}

    def transform(self, inpt: torch.Tensor, params: dict[str, torch.Tensor]) -> torch.Tensor:
        """The picture with other amounts of its stains."""
        density = -inpt.clamp(FAINT, 1).log().movedim(0, -1)
        changed = (density @ self.inverse) * params["factor"] + params["shift"]
        return (-(changed @ self.stains)).exp().movedim(-1, 0).clamp(0, 1)


class ColourDegeneration(v2.Transform):
    """Fades a picture towards grey by a random share."""

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        """How much colour is left, 0..1."""
        return {"left": float(torch.rand(()))}

    def transform(self, inpt: torch.Tensor, params: dict[str, float]) -> torch.Tensor:
        """The faded picture."""
        return functional.adjust_saturation(inpt, params["left"])


def training_transform(
    augment: Augment,
    input_size: tuple[int, int],
    seen: float = 1.0,
    other: Callable[[], np.ndarray] | None = None,
) -> Callable[[np.ndarray], torch.Tensor]:
    """Random changes of uint8 pixels (h, w, 3) that make them a uint8 tensor (*input_size, 3) of training.

    `input_size` is (height, width) in pixels, `seen` the middle share of the picture's sides that fills it. `other`
    draws another training picture, for its background or colours. All that is random is drawn from torch's generator.
    """
    borrowed: list[Callable[[np.ndarray], np.ndarray]] = []
    if augment.background and other:
        borrowed.append(Background(augment.background, other))
    if augment.colour_transfer and other:
        borrowed.append(ColourTransfer(augment.colour_transfer, other))
    warp, colours, stored, blur = Warp(augment, input_size, seen), Colours(augment), Storage(augment), Blur(augment)
    steps = _rest(augment)
    rest = v2.Compose(steps) if steps else None

    def transform(pixels: np.ndarray) -> torch.Tensor:
        for borrow in borrowed:
            pixels = borrow(pixels)
        changed = torch.from_numpy(blur(stored(colours(warp(pixels)))))
        return rest(changed.permute(2, 0, 1).contiguous()).permute(1, 2, 0) if rest else changed

    return transform


class Warp:
    """Flips, crop, rotation, shift, shear and zoom about the centre, and the resizing to `size` (height, width).

    Of the picture the middle is seen, `seen` of its sides.
    """

    def __init__(self, augment: Augment, size: tuple[int, int], seen: float = 1.0) -> None:
        self.augment, self.size, self.seen = augment, size, seen
        self.affine = None
        if augment.rotation or augment.shift or augment.zoom or augment.shear:
            self.affine = v2.RandomAffine(
                degrees=augment.rotation,
                translate=(augment.shift, augment.shift),
                scale=(1 - augment.zoom, 1 + augment.zoom),
                shear=augment.shear or None,
            )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → uint8 (*size, 3)."""
        if self.augment.crop:
            pixels = _cropped(pixels, self.augment.crop)
        pixels = np.ascontiguousarray(pixels)
        if self.augment.horizontal_flip and torch.rand(()) < 0.5:
            pixels = cv2.flip(pixels, 1)
        if self.augment.vertical_flip and torch.rand(()) < 0.5:
            pixels = cv2.flip(pixels, 0)
        if self.augment.frame and torch.rand(()) < self.augment.frame:
            pixels = _framed(pixels)
        height, width = self.size
        if self.affine is None:
            pixels = _middle(pixels, self.seen)
            smaller = pixels.shape[0] > height or pixels.shape[1] > width
            return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        if self.seen * max(pixels.shape[0] / height, pixels.shape[1] / width) > MUCH:
            whole = (round(width / self.seen), round(height / self.seen))
            pixels = cv2.resize(pixels, whole, interpolation=cv2.INTER_AREA)
        drawn = self.affine.make_params([torch.empty(3, *pixels.shape[:2])])
        matrix = _matrix(pixels.shape[:2], self.size, self.seen, **drawn)
        return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=self.augment.fill)


def _middle(pixels: np.ndarray, seen: float) -> np.ndarray:
    """The middle of a picture, `seen` of its sides."""
    height, width = (max(1, round(seen * side)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _matrix(
    source: tuple[int, int],
    size: tuple[int, int],
    seen: float,
    angle: float,
    translate: list,
    scale: float,
    shear: list,
) -> np.ndarray:
    """2×3 matrix from a picture's pixels to those of one of `size`: as torchvision's affine, then the resizing."""
    turn, lean, rise = (math.radians(value) for value in (angle, *shear))
    across, down = math.cos(turn - rise) / math.cos(rise), math.sin(turn - rise) / math.cos(rise)
    linear = scale * np.array(
        [
            [across, -across * math.tan(lean) - math.sin(turn)],
            [down, -down * math.tan(lean) + math.cos(turn)],
        ]
    )
    centre = np.array([source[1] / 2, source[0] / 2])
    resize = np.diag([size[1] / source[1], size[0] / source[0]]) / seen
    # pixel centres lie at halves
    middle = np.array([size[1] / 2, size[0] / 2])
    offset = resize @ (linear @ (0.5 - centre) + np.asarray(translate, float)) + middle - 0.5
    return np.column_stack([resize @ linear, offset])


def _framed(pixels: np.ndarray) -> np.ndarray:
    """Parts of a square around a cell outside a tight crop: see `zoo.imaging.localise.square_at`."""
    height, width = pixels.shape[:2]
    low, high = TIGHT[0] / ROOM / 2, TIGHT[1] / ROOM / 2
    left, top, right, bottom = (low + (high - low) * torch.rand(4)).tolist()
    rows = slice(max(0, round(height * (0.5 - top))), round(height * (0.5 + bottom)))
    columns = slice(max(0, round(width * (0.5 - left))), round(width * (0.5 + right)))
    inside = pixels[rows, columns]
    framed = np.empty_like(pixels)
    framed[:] = empty_slide(Image.fromarray(inside))
    framed[rows, columns] = inside
    return framed


def _cropped(pixels: np.ndarray, most: float) -> np.ndarray:
    """A part of the picture's own shape, of at least 1 - `most` of its area."""
    height, width = pixels.shape[:2]
    side = math.sqrt(1 - most * float(torch.rand(())))
    tall, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = (int(torch.randint(0, n + 1, ())) for n in (height - tall, width - wide))
    return pixels[top : top + tall, left : left + wide]


class Background:
    """Lays the cell into another picture's surroundings; both show their cell in the middle, at one scale.

    The cell is given the other slide's light, too: stains multiply light, so all of it times one factor a channel.
    """

    def __init__(self, probability: float, other: Callable[[], np.ndarray]) -> None:
        self.probability, self.other = probability, other

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → the same shape; unchanged where no cell is found."""
        if torch.rand(()) >= self.probability:
            return pixels
        ground = np.rot90(self.other(), int(torch.randint(4, ())))
        ground = cv2.resize(np.ascontiguousarray(ground), pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        own, others = _cell_of(pixels), _cell_of(ground)
        if own is None or others is None:
            return pixels
        here, there = (np.array(empty_slide(Image.fromarray(each)), np.float32) for each in (pixels, ground))
        light = np.clip(there / np.maximum(here, 1), *LIGHTS)
        empty = ground + others * (there - ground)
        return (own * light * pixels + (1 - own) * empty).clip(0, 255).astype(np.uint8)


class ColourTransfer:
    """Gives a picture another's mean and spread of each channel in CIE L*a*b*, or a random share of the way to them.

    Reinhard et al. 2001, doi:10.1109/38.946629. Where pictures of several laboratories are trained on, their stains and
    cameras are exchanged so.
    """

    def __init__(self, probability: float, other: Callable[[], np.ndarray]) -> None:
        self.probability, self.other = probability, other

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → the same shape."""
        if torch.rand(()) >= self.probability:
            return pixels
        share = float(torch.rand(()))
        lab = _lab(pixels)
        (mean, spread), (to_mean, to_spread) = (cv2.meanStdDev(each) for each in (lab, _lab(self.other())))
        # a channel without contrast has none to be stretched, and its noise is not to become the picture
        gain = np.clip(to_spread / np.maximum(spread, 1), *SPREADS) ** share
        moved = (lab - mean.T) * gain.T + mean.T + share * (to_mean - mean).T
        back = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
        return (255 * back).round().clip(0, 255).astype(np.uint8)


def _lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (h, w, 3) of sRGB bytes, L* from 0 to 100."""
    return cv2.cvtColor(np.float32(pixels) / 255, cv2.COLOR_RGB2LAB)


def _cell_of(pixels: np.ndarray) -> np.ndarray | None:
    """How far each pixel is of the cell (h, w, 1), 0..1, its surroundings fading; None if no cell is found."""
    height, width = pixels.shape[:2]
    # half as fine: the mask's edge is soft, and the search four times as fast
    small = cv2.resize(pixels, (max(8, width // 2), max(8, height // 2)), interpolation=cv2.INTER_AREA)
    cell = find_cell(Image.fromarray(small))
    if cell is None:
        return None
    mask = cv2.resize(cell.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(2 * cv2.GaussianBlur(mask, (0, 0), RIM * width), 0, 1)[..., None]


class Colours:
    """Brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter has them."""

    def __init__(self, augment: Augment) -> None:
        self.steps: list[tuple[Callable[[np.ndarray, float], np.ndarray], float, float]] = []
        for change, strength in (
            (_brighter, augment.brightness),
            (_contrasted, augment.contrast),
            (_saturated, augment.saturation),
        ):
            if strength:
                self.steps.append((change, max(0.0, 1 - strength), 1 + strength))
        if augment.hue:
            self.steps.append((_turned, -augment.hue, augment.hue))
        self.tint, self.light = augment.tint, augment.light

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → the same shape."""
        for number in torch.randperm(len(self.steps)).tolist():
            change, low, high = self.steps[number]
            pixels = change(pixels, low + (high - low) * float(torch.rand(())))
        if self.tint:
            pixels = _tinted(pixels, self.tint * (2 * torch.rand(3, 2).numpy() - 1), self.tint * _signed())
        if self.light:
            pixels = _lit(pixels, self.light * _signed(), self.light * _signed())
        return pixels


class Storage:
    """Fewer pixels, and JPEG compression: what cameras and archives do to a picture."""

    def __init__(self, augment: Augment) -> None:
        self.resolution, self.jpeg = augment.resolution, augment.jpeg

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → the same shape."""
        if self.resolution and torch.rand(()) < 0.5:
            pixels = _coarser(pixels, self.resolution + (1 - self.resolution) * float(torch.rand(())))
        if self.jpeg and torch.rand(()) < 0.5:
            quality = self.jpeg + round((BEST - self.jpeg) * float(torch.rand(())))
            _, content = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            pixels = np.ascontiguousarray(cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1])
        return pixels


class Blur:
    """Three pictures in ten out of focus: Gaussian, with a standard deviation of up to `augment.blur` pixels."""

    def __init__(self, augment: Augment) -> None:
        self.most = augment.blur

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) → the same shape."""
        if not self.most or torch.rand(()) >= BLURRED:
            return pixels
        return _blurred(pixels, SHARP + (self.most - SHARP) * float(torch.rand(())))


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (5, 5), sigma)


def _coarser(pixels: np.ndarray, share: float) -> np.ndarray:
    """A picture of fewer pixels, brought back to its size."""
    height, width = pixels.shape[:2]
    small = cv2.resize(
        pixels, (max(4, round(width * share)), max(4, round(height * share))), interpolation=cv2.INTER_AREA
    )
    how = cv2.INTER_CUBIC if torch.rand(()) < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(small, (width, height), interpolation=how)


def _signed() -> float:
    return 2 * float(torch.rand(())) - 1


def _tinted(pixels: np.ndarray, changes: np.ndarray, gamma: float) -> np.ndarray:
    """Each channel's factor and exponent of its own, and an exponent for all: `changes` (3, 2) and `gamma` are logs."""
    levels = np.linspace(0, 1, 256)[:, None]
    table = 255 * levels ** np.exp(0.5 * changes[:, 1] + gamma) * np.exp(0.7 * changes[:, 0])
    return cv2.LUT(pixels, table.clip(0, 255).astype(np.uint8)[:, None, :])


def _lit(pixels: np.ndarray, across: float, down: float) -> np.ndarray:
    """Brighter on one side, by shares of the picture's light."""
    height, width = pixels.shape[:2]
    light = 1 + across * np.linspace(-1, 1, width, dtype=np.float32)[None] / 2
    light = light + down * np.linspace(-1, 1, height, dtype=np.float32)[:, None] / 2
    return (pixels * light[..., None]).clip(0, 255).astype(np.uint8)


def _brighter(pixels: np.ndarray, factor: float) -> np.ndarray:
    return cv2.convertScaleAbs(pixels, alpha=factor)


def _contrasted(pixels: np.ndarray, factor: float) -> np.ndarray:
    mean = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0]
    table = np.clip(factor * np.arange(256) + (1 - factor) * mean, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)


def _saturated(pixels: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)


def _turned(pixels: np.ndarray, share: float) -> np.ndarray:
    """Hue turned by a share of the whole circle."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(255 * share) % 256)  # bytes wrap around, as hues do
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _rest(augment: Augment) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """What torchvision does, on uint8 tensors (3, h, w), in between on float ones."""
    steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
    if augment.colour_degeneration:
        steps.append(v2.RandomApply([ColourDegeneration()], p=augment.colour_degeneration))
    if augment.channel_shuffle:
        steps.append(v2.RandomApply([v2.RandomChannelPermutation()], p=augment.channel_shuffle))
    if augment.randaugment:
        steps.append(v2.RandAugment(magnitude=augment.randaugment, fill=list(augment.fill)))
    if augment.augmix:
        steps.append(v2.AugMix(severity=augment.augmix, fill=list(augment.fill)))
    exact: list[v2.Transform] = [HedJitter(augment.hed)] if augment.hed else []
    if augment.noise:
        exact.append(v2.RandomApply([v2.GaussianNoise(sigma=augment.noise)], p=0.3))
    return [*steps, v2.ToDtype(torch.float32, scale=True), *exact, _bytes] if exact else steps


def _bytes(picture: torch.Tensor) -> torch.Tensor:
    """A float picture in 0..1 as uint8; torchvision's own conversion rounds down."""
    return (255 * picture).round_().clamp_(0, 255).to(torch.uint8)
