"""Pictures that come with the program, behind the predictions on benchmarks."""

from __future__ import annotations

import zipfile

import pytest
from PIL import Image

from tests.making import draw_cell
from training.cli import main
from zoo.benchmarks import get_benchmark, names
from zoo.benchmarks.thumbnails import FOLDER, SIDE, thumbnail, write_thumbnails
from zoo.sources.examples import BUNDLED

MOST_BYTES = 3e6  # of all pictures that come with the program
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.zip"))


@pytest.mark.parametrize("name", SHIPPED)
def test_each_row_has_its_picture_and_the_data_set_allows_it(name):
    benchmark = get_benchmark(name)
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        assert sorted(archive.namelist()) == sorted(benchmark.rows["file"])
        assert benchmark.credit in archive.comment.decode()
    assert all(map(benchmark.data_set.may_be_published, benchmark.rows["file"]))
    for file in benchmark.rows["file"][::200]:
        image = thumbnail(name, file)
        assert isinstance(image, Image.Image)
        assert (image.mode, max(image.size) <= SIDE) == ("RGB", True)


def test_only_benchmarks_that_exist_have_pictures_and_they_are_few():
    assert SHIPPED
    assert set(SHIPPED) <= set(names())
    size = sum(path.stat().st_size for place in (FOLDER, BUNDLED) for path in place.iterdir())
    assert size < MOST_BYTES


def test_names_that_are_not_there_have_no_picture(tmp_path):
    assert thumbnail("pbc-test", "../pbc-test.csv") is None
    assert thumbnail("lisc", "basophil/lisc_1.png") is None
    assert thumbnail("../pbc-test", "x") is None
    assert write_thumbnails(tmp_path / "a.zip", [("a/1.png", draw_cell("monocyte", 1))], "drawn") == 1
    first = (tmp_path / "a.zip").read_bytes()
    write_thumbnails(tmp_path / "a.zip", [("a/1.png", draw_cell("monocyte", 1))], "drawn")
    assert (tmp_path / "a.zip").read_bytes() == first


def test_pictures_of_other_sets_are_refused(tmp_path, capsys):
    assert main(["rows", "lisc", "--data", str(tmp_path), "--thumbnails"]) == 1
    assert "may not be published" in capsys.readouterr().err
