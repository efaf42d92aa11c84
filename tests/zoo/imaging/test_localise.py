"""The cell is found in any stain, framing and size; nothing is found where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.making import LABELS, draw_cell
from zoo.imaging.localise import (
    SQUARE_SCALE,
    STAINED_LIGHT,
    crop_isolated,
    crop_square,
    crop_system_e,
    find_cell,
    locate_cell,
)
from zoo.imaging.published_crop import PADDING


def smear(where: tuple[int, int], size: tuple[int, int] = (320, 240), radius: int = 16) -> Image.Image:
    """A field of red cells with one stained nucleus in its cytoplasm at `where`."""
    random = np.random.default_rng(5)
    image = Image.new("RGB", size, (232, 224, 214))
    draw = ImageDraw.Draw(image)
    for x, y in random.uniform(0, 1, (40, 2)) * size:
        draw.ellipse([x - 14, y - 14, x + 14, y + 14], fill=(214, 168, 158))
    x, y = where
    draw.ellipse([x - 1.6 * radius, y - 1.6 * radius, x + 1.6 * radius, y + 1.6 * radius], fill=(208, 196, 226))
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(98, 58, 148))
    noise = random.normal(0, 3, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def inside(point: tuple[float, float], where: tuple[int, int], radius: float) -> bool:
    return np.hypot(point[0] - where[0], point[1] - where[1]) <= radius


@pytest.mark.parametrize("where", [(160, 120), (60, 50), (250, 190), (310, 120)])
def test_finds_a_cell_anywhere_in_a_smear(where):
    found = find_cell(smear(where))
    assert inside(found.centre, where, 8)
    left, top, right, bottom = found.box
    assert left <= where[0] <= right
    assert top <= where[1] <= bottom
    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 240
    assert found.confidence > 0.3


def test_size_is_measured_in_the_pictures_own_pixels():
    small, large = smear((160, 120)), smear((160, 120)).resize((1280, 960))
    one, four = find_cell(small), find_cell(large)
    assert one.nucleus_diameter == pytest.approx(32, rel=0.15)
    assert four.nucleus_diameter == pytest.approx(4 * one.nucleus_diameter, rel=0.1)
    width = one.box[2] - one.box[0]
    assert width == pytest.approx(2 * 1.6 * 16, rel=0.25)


def test_finds_a_tiny_cell_in_a_large_field():
    where = (1500, 300)
    found = find_cell(smear(where, (2000, 1500), radius=14))
    assert inside(found.centre, where, 14)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("tint", [(1, 1, 1), (0.8, 0.8, 0.95), (1, 0.92, 0.82)])
def test_finds_the_cell_in_other_light_and_stain(label, tint):
    pixels = np.asarray(draw_cell(label, 1, (160, 160)), float) * tint
    found = find_cell(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    assert inside(found.centre, (80, 80), 35)


def test_black_corners_are_no_cell():
    turned = smear((160, 120)).rotate(25, fillcolor=(0, 0, 0))
    assert inside(find_cell(turned).centre, (160, 120), 8)


@pytest.mark.parametrize("rim", [(30, 30, 30), (62, 55, 50)])
def test_an_eyepieces_rim_is_no_cell(rim):
    """The corners of a picture through an eyepiece are dark, but not black."""
    field = smear((160, 120), (320, 320))
    lit = Image.new("L", field.size)
    ImageDraw.Draw(lit).ellipse([4, 4, 316, 316], fill=255)
    assert inside(find_cell(Image.composite(field, Image.new("RGB", field.size, rim), lit)).centre, (160, 120), 8)


def veiled(image: Image.Image, kept: float) -> Image.Image:
    """The picture through haze of the slide's own colour; `kept` of its contrast is left."""
    slide = np.percentile(np.asarray(image), 90, axis=(0, 1))
    return Image.fromarray((slide + kept * (np.asarray(image) - slide)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kept", [0.3, 0.5])
@pytest.mark.parametrize("label", LABELS)
def test_a_faint_picture_gives_the_square_of_a_clear_one(label, kept):
    clear = draw_cell(label, 2, (160, 160))
    one, other = crop_square(clear), crop_square(veiled(clear, kept))
    before, after = one.image, other.image
    assert np.abs(np.subtract(one.box, other.box)).max() <= 8
    pixels, shown = np.asarray(before, float), np.asarray(after.resize(before.size), float)
    darkest, brightest = np.percentile(shown[..., 1], (1, 90))
    assert darkest < max(np.percentile(pixels[..., 1], 1), (STAINED_LIGHT + 0.1) * brightest)
    assert np.abs(shown - pixels).mean() < np.abs(np.asarray(veiled(before, kept), float) - pixels).mean()


def test_black_corners_do_not_count_as_stain():
    faint = veiled(smear((160, 120)), 0.35).rotate(25, fillcolor=(0, 0, 0), resample=Image.Resampling.BILINEAR)
    square = crop_square(faint).image
    middle = np.asarray(square)[square.height // 3 : -square.height // 3, square.width // 3 : -square.width // 3]
    assert np.percentile(middle[..., 1], 5) < 110


@pytest.mark.parametrize("where", [(160, 120), (30, 40)])
def test_an_isolated_cell_is_the_square_without_its_neighbours(where):
    field = smear(where)
    square, alone = crop_square(field), crop_isolated(field)
    assert square.box == alone.box and square.image.size == alone.image.size
    assert square.confidence == alone.confidence
    assert (square.crop, alone.crop) == ("square", "alone")
    before, after = (np.asarray(crop.image).astype(int) for crop in (square, alone))
    y, x = where[1] - square.box[1], where[0] - square.box[0]
    rows, columns = np.mgrid[: len(before), : len(before)]
    away = np.hypot(rows - y, columns - x)
    assert np.abs(after - before)[away < 22].max() <= 3  # the cell is all there
    assert np.ptp(after[away > 40], axis=0).max() == 0  # and nothing else
    assert np.ptp(before[away > 40], axis=0).max() > 20


def test_isolating_nothing_gives_the_whole_picture():
    empty = Image.new("RGB", (64, 48), (240, 240, 240))
    assert np.array_equal(np.asarray(crop_isolated(empty).image), np.asarray(crop_square(empty).image))


def test_contrast_of_a_clear_picture_is_unchanged():
    clear = draw_cell("neutrophil", 2, (160, 160))
    found = crop_square(clear)
    square, (left, top, right, bottom) = found.image, found.box
    inner = (max(0, left), max(0, top), min(160, right), min(160, bottom))
    shown = square.crop((inner[0] - left, inner[1] - top, inner[2] - left, inner[3] - top))
    assert np.array_equal(np.asarray(shown), np.asarray(clear.crop(inner)))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (230, 220, 210)])
def test_finds_nothing_in_an_empty_picture(colour):
    assert find_cell(Image.new("RGB", (80, 60), colour)) is None


@pytest.mark.parametrize("size", [(2, 2), (3, 500), (500, 3), (9, 9)])
def test_accepts_odd_sizes(size):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    found = find_cell(Image.fromarray(noise))
    if found is not None:
        assert 0 <= found.box[0] < found.box[2] <= size[0]
        assert 0 <= found.box[1] < found.box[3] <= size[1]


def test_masks_fit_the_picture():
    found = find_cell(smear((160, 120)))
    assert found.mask.shape == found.nucleus.shape
    assert found.mask[found.nucleus].all()
    assert found.mask.shape[1] == round(320 * found.scale)


def purple(where: tuple[int, int] | None) -> Image.Image:
    image = Image.new("RGB", (320, 240), (220, 200, 190))
    if where:
        x, y = where
        ImageDraw.Draw(image).ellipse([x - 30, y - 30, x + 30, y + 30], fill=(120, 100, 210))
    return image


def test_system_e_crops_the_purple_range():
    """Radius 30, twice eroded by 1, five times dilated by 2: 38 pixels to every side, all else black."""
    crop = crop_system_e(purple((150, 100))).image
    assert abs(crop.width - 76) <= 4
    assert abs(crop.height - 76) <= 4
    pixels = np.asarray(crop)
    assert tuple(pixels[crop.height // 2, crop.width // 2]) == (120, 100, 210)
    assert (pixels[1, 1] == 0).all()


def test_system_e_gives_the_padded_picture_where_it_finds_nothing():
    found = crop_system_e(purple(None))
    assert found.image.size == (320 + 2 * PADDING, 240 + 2 * PADDING)
    assert found.box == (-PADDING, -PADDING, 320 + PADDING, 240 + PADDING)
    assert found.image.getpixel((0, 0)) == (198, 203, 208)


def published_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the published crop, by its steps as they are written down."""
    pixels = cv2.copyMakeBorder(np.array(image), *[PADDING] * 4, cv2.BORDER_CONSTANT, value=(198, 203, 208))
    found = cv2.erode(cv2.inRange(pixels, (80, 80, 180), (180, 170, 245)), np.ones((3, 3)), iterations=2)
    found = cv2.GaussianBlur(cv2.dilate(found, np.ones((5, 5)), iterations=5), (1, 1), 0)
    edges = cv2.Canny(cv2.bilateralFilter(found, 9, 75, 75), 100, 400)
    edges = cv2.erode(cv2.dilate(edges, None, iterations=1), None, iterations=1)
    contours = sorted(cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], key=cv2.contourArea)
    corners = [np.array(cv2.boxPoints(cv2.minAreaRect(contour)), dtype=int) for contour in contours]
    corners = [box for box in corners if (box[0] != box[3]).any() and (box[0] != box[1]).any()]
    if corners:
        (left, top), (right, bottom) = corners[-1].min(0), corners[-1].max(0)
        part = pixels[top:bottom, left:right]
        pixels = part if part.size else pixels
    return pixels.shape[1], pixels.shape[0]


@pytest.mark.parametrize("seed", range(12))
def test_system_e_is_the_published_crop(seed):
    """Irregular purple shapes, with holes, beside others and at the edges."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), (220, 200, 190))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, a, b = random.integers([-10, -10, 4, 4], [170, 130, 40, 30]).tolist()
        colour = (120, 100, 210) if random.random() < 0.7 else (220, 200, 190)
        draw.ellipse([x - a, y - b, x + a, y + b], fill=colour)
    assert crop_system_e(image).image.size == published_size(image)


def test_entries_of_version_0_2_keep_their_crop():
    empty = purple(None)
    assert locate_cell(empty, "cell-0.2").image is empty
    assert locate_cell(purple((150, 100)), "cell-0.2").image.size == crop_system_e(purple((150, 100))).image.size


def test_system_e_pads_so_that_a_cell_at_the_edge_is_found():
    crop = crop_system_e(purple((5, 100))).image
    assert crop.size != (320, 240)
    assert crop.width <= 38 + 5 + PADDING + 2


@pytest.mark.parametrize("size", [(96, 96), (320, 240), (640, 480)])
@pytest.mark.parametrize("away", [(0, 0), (-0.3, 0.2)])
def test_squares_have_one_scale(size, away):
    """Whatever the field, the cell fills the same share of the square, in the middle."""
    cell = draw_cell("monocyte", 3, (96, 96))
    field = Image.new("RGB", size, (232, 222, 214))
    at = [round((1 + a) * (side - 96) / 2) for a, side in zip(away, size, strict=True)]
    field.paste(cell, tuple(at))
    located = crop_square(field)
    square, box = located.image, located.box
    assert square.size[0] == square.size[1] == box[2] - box[0]
    found = find_cell(square)
    assert found.box[2] - found.box[0] == pytest.approx(square.width / SQUARE_SCALE, rel=0.12)
    assert (found.box[0] + found.box[2]) / 2 == pytest.approx(square.width / 2, abs=0.05 * square.width)
    assert np.abs(np.asarray(square)[0, 0].astype(int) - (232, 222, 214)).max() < 25
    assert np.array_equal(np.asarray(locate_cell(field, "square").image), np.asarray(square))


@pytest.mark.parametrize("size", [(2, 2), (3, 200), (64, 64)])
def test_a_square_of_nothing_is_the_whole_picture(size):
    located = crop_square(Image.new("RGB", size, (240, 240, 240)))
    square, box = located.image, located.box
    assert located.confidence == 0
    assert located.cell is None
    assert square.size[0] == square.size[1]
    assert box[2] - box[0] >= max(size)
