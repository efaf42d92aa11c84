"""Small pictures behind the predictions on benchmarks whose data sets allow it: they come with the program.

One zip a benchmark, with a picture a row and the credit as its comment. `python -m training rows NAME --data ROOT
--thumbnails` makes it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image

from zoo.files import atomic_path

FOLDER = Path(__file__).parent / "pictures"
SIDE, QUALITY = 72, 62  # pixels of the longer side, and of WebP: about a kilobyte a picture
BEGINNING = (1980, 1, 1, 0, 0, 0)  # of zip's time: the same pictures give the same file


def thumbnail(benchmark: str, file: str) -> Image.Image | None:
    """The RGB thumbnail of a benchmark's picture, called as in its rows; None where there is none."""
    path = FOLDER / f"{benchmark}.zip"
    if Path(benchmark).name != benchmark or not path.is_file():
        return None
    archive = _archive(path, path.stat().st_mtime_ns)
    if file not in archive.namelist():
        return None
    with Image.open(io.BytesIO(archive.read(file))) as image:
        return image.convert("RGB")


def thumbnail_names(benchmark: str) -> frozenset[str]:
    """Names of a benchmark's pictures that have a thumbnail."""
    path = FOLDER / f"{benchmark}.zip"
    if Path(benchmark).name != benchmark or not path.is_file():
        return frozenset()
    return frozenset(_archive(path, path.stat().st_mtime_ns).namelist())


@lru_cache(8)
def _archive(path: Path, _changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def write_thumbnails(path: Path, pictures: Iterable[tuple[str, Image.Image]], credit: str) -> int:
    """Write the thumbnails of pictures, by name, into a zip that tells whom to credit; returns their number."""
    count = 0
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.comment = f"{credit}; made smaller".encode()
        for name, image in pictures:
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            content = io.BytesIO()
            image.save(content, "WEBP", quality=QUALITY, method=6)
            archive.writestr(zipfile.ZipInfo(name, BEGINNING), content.getvalue())
            count += 1
    return count
