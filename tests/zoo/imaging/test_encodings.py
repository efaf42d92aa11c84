"""One cell in many encodings gives one answer, or a sentence."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.zoo.imaging.encodings import (
    ARRAY,
    CELL,
    LOSSLESS,
    LOSSY_OR_DEEP,
    REFUSED,
    SAID,
    TWELVE,
    WIDE,
    saved,
    tiff,
)
from zoo.imaging.decode import FORMATS, PictureError, from_array, list_pages, read_image, read_picture
from zoo.limits import PICTURE_MB
from zoo.serving.runtime import Runtime
from zoo.sources.catalogue import get_entry

MODEL = "champion8-small"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def network():
    """From a picture to the network's own probabilities."""
    entry = get_entry(MODEL)
    with Runtime("cpu", "fp32") as runtime:
        yield lambda image: np.array(list(runtime.classify(entry, image).network.values()))


@pytest.fixture(scope="module")
def reference(network):
    return network(CELL)


def test_there_are_enough_encodings():
    assert len(LOSSLESS) + len(LOSSY_OR_DEEP) + len(REFUSED) >= 60


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY_OR_DEEP])
def test_every_encoding_gives_the_answer_of_the_cell(name, network, reference):
    raw = (LOSSLESS | LOSSY_OR_DEEP)[name]()
    found = read_picture(raw, "wrong ending.txt")
    assert (found.image.mode, found.image.size, found.image.info) == ("RGB", CELL.size, {})
    tolerance = 0.02 if name in LOSSLESS else 0.1
    assert np.abs(network(found.image) - reference).max() <= tolerance
    distance = np.abs(np.asarray(found.image, float) - ARRAY).mean()
    assert distance <= (2.5 if name in LOSSLESS else 12)
    if name in SAID:
        assert SAID[name] in "; ".join(found.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_odd_files_get_their_sentence(name):
    make, called, said = REFUSED[name]
    with pytest.raises(PictureError, match=said) as caught:
        read_picture(make(), called)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["png", "png invisible", "png profile", "webp orientation", "jpeg profile", "gif"])
def test_a_pillow_picture_and_its_file_are_the_same(name, tmp_path):
    raw = (LOSSLESS | LOSSY_OR_DEEP)[name]()
    (tmp_path / "x").write_bytes(raw)
    with Image.open(tmp_path / "x") as opened:
        before = opened.copy()
        assert (np.asarray(read_image(opened).image) == np.asarray(read_picture(raw).image)).all()
        assert (opened.size, opened.mode) == (before.size, before.mode)


@pytest.mark.parametrize("array", [ARRAY, WIDE, TWELVE, (ARRAY / 255).astype(np.float32), WIDE.astype(np.int64)])
def test_an_array_and_its_file_are_the_same(array):
    stored = read_picture(tiff(array) if array.dtype != np.int64 else tiff(array.astype(np.uint16))).image
    assert np.abs(np.asarray(from_array(array), int) - np.asarray(stored)).max() <= 1


def test_pages_are_pictures(tmp_path):
    path = tmp_path / "file.tif"
    path.write_bytes(tiff(np.stack([ARRAY // 2, ARRAY])))
    assert list_pages(path) == (2, False)
    second = read_picture(tmp_path / "file.tif#page=2")
    assert (second.page, second.pages, second.notes) == (2, 2, ())
    assert (np.asarray(second.image) == ARRAY).all()


def test_slices_of_a_stack_can_be_read_one_by_one():
    raw = LOSSLESS["tiff stack"]()
    assert list_pages(raw) == (3, True)
    pages = [np.asarray(read_picture(raw, page=number).image) for number in (1, 2, 3)]
    assert (pages[1] == ARRAY).all()
    assert (pages[0] == pages[2]).all()
    assert (pages[0] != pages[1]).any()


def test_alpha_is_laid_on_white():
    clear = CELL.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(CELL.size))
    found = read_picture(saved(clear, "PNG"))
    assert np.asarray(found.image)[0].min() >= 254
    assert found.notes == ("transparent parts laid on white",)


def test_the_documents_list_the_formats():
    text = (Path(__file__).parents[3] / "docs" / "pictures.md").read_text(encoding="utf-8")
    rows = text.split("<!-- formats -->")[1].split("<!-- /formats -->")[0].strip().splitlines()[2:]
    assert rows == [f"| {one.name} | {', '.join(f'`{suffix}`' for suffix in one.suffixes)} |" for one in FORMATS]


def test_the_browser_takes_files_as_large_as_the_limit():
    settings = tomllib.loads((Path(__file__).parents[3] / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert settings["server"]["maxUploadSize"] == PICTURE_MB.default


def test_each_format_is_tried():
    heads = [make()[:600] for make in (LOSSLESS | LOSSY_OR_DEEP).values()]
    assert [kind.name for kind in FORMATS if not any(kind.signature(head) for head in heads)] == []


def test_the_range_is_that_of_all_channels():
    """Samples at even steps would all be of the first channel."""
    ramp = np.linspace(0, 1, 2000)
    wide = np.stack(np.broadcast_arrays(900 * ramp[:, None], 4000 * ramp, 2000), axis=-1).astype(np.uint16)
    assert read_picture(tiff(wide, compression="zlib")).notes == ("read as 12 bit",)


def test_premultiplied_colours_are_laid_on_white():
    half = np.dstack([WIDE // 2, np.full(WIDE.shape[:2], 32768, np.uint16)])
    found = read_picture(tiff(half, extrasamples=["assocalpha"])).image
    assert np.abs(np.asarray(found, float) - (ARRAY / 2 + 127.5)).max() <= 3


def test_a_pillow_picture_of_inverted_levels_is_turned_as_its_file_is():
    raw = tiff(65535 - WIDE[..., 0], photometric="miniswhite")
    with Image.open(io.BytesIO(raw)) as opened:
        assert read_image(opened).image.tobytes() == read_picture(raw).image.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_limit_on_memory_that_the_system_sets_does_not_end_the_decoder(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(ARRAY))
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30));"
    limited += "from pathlib import Path; from zoo.imaging.decode import read_picture; read_picture(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", limited, str(tmp_path / "x.tif")], check=True, cwd=ROOT)
