"""The one error of reading pictures, and the sentence for each failure of a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.imaging.decode.formats import NAMES
from zoo.limits import LimitError


class PictureError(ValueError):
    """A picture that cannot be used; the message is a sentence for the user."""


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn whatever a decoder raises into a PictureError.

    Decoders raise nearly anything on hostile input: struct.error, zlib.error, RecursionError, ImportError of a codec.
    Their own texts may quote the file, names of patients included, and are left out.
    """
    try:
        yield
    except (PictureError, LimitError):
        raise
    except Exception as error:
        raise PictureError(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, MemoryError):
        return "The picture needs more memory than a picture may take. Upload a smaller one."
    if isinstance(error, ImportError):
        return f"This kind of picture needs a codec that is not installed. Export it again as {NAMES}."
    if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
        return "The file is cut short: part of the picture is missing. Copy or export it again."
    return f"The file is damaged or of a kind we cannot read. Export it again as {NAMES}."
