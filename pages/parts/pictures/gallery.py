"""Pictures on pages: decoded, as thumbnails, as data URLs, and many at once."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TypeVar

import streamlit as st
from PIL import Image

from zoo.bounded import ByteCache
from zoo.imaging.decode import Picture, PictureError, read_picture
from zoo.limits import DECODED_MB

THUMBNAIL_PIXELS = 64
SHEET_PIXELS = 88  # of a picture in a sheet
JPEG_QUALITY = 85
STYLE = f"""<style>
.sheet{{display:flex;flex-wrap:wrap;gap:8px}}.sheet figure{{margin:0;width:{SHEET_PIXELS}px;font-size:11px;
line-height:1.3;overflow-wrap:anywhere}}.sheet img{{width:{SHEET_PIXELS}px;border-radius:4px;display:block}}
</style>"""

Item = TypeVar("Item")


def _size(found: Picture | str) -> int:
    return len(found) if isinstance(found, str) else 3 * found.image.width * found.image.height


_pictures: ByteCache[Picture | str] = ByteCache(lambda: DECODED_MB.bytes, _size)


def read(identity: str, data: bytes, name: str = "") -> Picture | str:
    """The picture with its notes, or a message that says why it cannot be read; kept for all sessions.

    Args:
        identity: Hash of the name and content.
        data: The file's content.
        name: Its name, which may ask for a page.
    """
    found = _pictures.get(identity)
    if found is None:
        try:
            found = read_picture(data, name)
        except PictureError as error:
            found = str(error)
        _pictures.put(identity, found)
    return found


def decoded(identity: str, data: bytes, name: str = "") -> Image.Image | str:
    """The picture as the model sees it, or a message that says why it cannot be read."""
    found = read(identity, data, name)
    return found if isinstance(found, str) else found.image


@st.cache_data(max_entries=4096, show_spinner=False)
def thumbnail(identity: str, _data: bytes, _name: str = "") -> str:
    """A small JPEG of the picture as a data URL; empty if it cannot be read."""
    image = decoded(identity, _data, _name)
    return "" if isinstance(image, str) else jpeg_url(image, THUMBNAIL_PIXELS)


def jpeg_url(image: Image.Image, pixels: int) -> str:
    """A JPEG of at most `pixels` a side, as a data URL."""
    small = image.copy()
    small.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return jpeg_data_url(buffer.getvalue())


def jpeg_data_url(data: bytes) -> str:
    """The content of a JPEG file as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def png(image: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_sheet(files: Sequence[str], url: Callable[[str], str], captions: Sequence[str]) -> None:
    """Show pictures with captions in one element; a hundred widgets would make the page slow.

    Args:
        files: Names of the files.
        url: Function from a name to the picture's data URL, empty if there is none.
        captions: A text for each file.
    """
    figures = []
    for file, caption in zip(files, captions, strict=True):
        source = url(file)
        image = f'<img alt="" src="{source}">' if source else ""
        figures.append(f'<figure title="{escape(file)}">{image}{escape(caption)}</figure>')
    st.html(f'{STYLE}<div class="sheet">{"".join(figures)}</div>')


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive parts of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
