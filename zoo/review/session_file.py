"""A review in one file: a ZIP with review.json (answers, decisions, hashes of the pictures) and the pictures if wanted.

Nothing in it is run: the JSON is validated, and pictures are read like uploads.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.limits import JSON_MB, SESSION_MB, SESSION_PICTURES
from zoo.review.cells import MAX_NOTE, Box, Cell, Decision, Journal, Key
from zoo.version import __version__

FORMAT = 1
CONTENT = "review.json"
PICTURES = "pictures/"  # folder of the pictures, named by their hash
MAX_WORD, MAX_NAME, MAX_CELLS = 100, 300, 50_000  # characters, and cells or decisions of a file


class ReviewFileError(ValueError):
    """A file that is no review; the message is a sentence for the user."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SavedPicture(_Strict):
    """A picture of the review."""

    hash: str = Field(max_length=MAX_WORD)
    name: str = Field(max_length=MAX_NAME)
    size: tuple[int, int]
    um_per_px: float | None = None


class SavedCell(_Strict):
    """A cell and the models' answers."""

    picture: str = Field(max_length=MAX_WORD)
    number: int
    box: Box
    object: str = Field(max_length=MAX_WORD)
    label: str | None = Field(default=None, max_length=MAX_WORD)
    confidence: float
    probabilities: dict[str, float] = Field(default_factory=dict)
    diameter_um: float | None = None
    cut: bool = False

    def cell(self) -> Cell:
        """The cell as it was saved."""
        return Cell(**dict(self))


class SavedDecision(_Strict):
    """A decision about a cell."""

    picture: str = Field(max_length=MAX_WORD)
    box: Box
    kind: str = Field(max_length=MAX_WORD)
    model: str | None = Field(default=None, max_length=MAX_WORD)
    reader: str = Field(default="", max_length=MAX_WORD)
    time: str = Field(default="", max_length=MAX_WORD)
    note: str = Field(default="", max_length=MAX_NOTE)

    def decision(self) -> tuple[Key, Decision]:
        """Its key and content."""
        return (self.picture, self.box), Decision(self.kind, self.model, self.reader, self.time, self.note)


class Review(_Strict):
    """Content of review.json.

    Attributes:
        slide, reader: As typed by the reader.
        model: Id of the classifier; `detector` of the detector, empty without one.
        sample: Name of the sample.
    """

    format: int = FORMAT
    version: str = Field(default=__version__, max_length=MAX_WORD)
    slide: str = Field(default="", max_length=MAX_NAME)
    reader: str = Field(default="", max_length=MAX_NAME)
    model: str = Field(default="", max_length=MAX_NAME)
    detector: str = Field(default="", max_length=MAX_NAME)
    sample: str = Field(default="", max_length=MAX_NAME)
    pictures: list[SavedPicture] = Field(default_factory=list)
    cells: list[SavedCell] = Field(default_factory=list, max_length=MAX_CELLS)
    decisions: list[SavedDecision] = Field(default_factory=list, max_length=MAX_CELLS)

    def journal(self) -> Journal:
        """The decisions, without steps to undo."""
        return Journal(dict(one.decision() for one in self.decisions))


def saved_cells(cells: Sequence[Cell]) -> list[SavedCell]:
    """Cells as they are saved."""
    return [SavedCell(**vars(cell)) for cell in cells]


def saved_decisions(decisions: Mapping[Key, Decision]) -> list[SavedDecision]:
    """Decisions as they are saved."""
    return [SavedDecision(picture=key[0], box=key[1], **vars(one)) for key, one in decisions.items()]


def write_review(review: Review, pictures: Mapping[str, tuple[str, bytes]] | None = None) -> bytes:
    """A ZIP file with a review.

    Args:
        review: Answers and decisions.
        pictures: Name and content of each picture that goes into the file, by its hash.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CONTENT, review.model_dump_json(indent=1))
        for identity, (_, data) in (pictures or {}).items():
            file.writestr(f"{PICTURES}{identity}", data, zipfile.ZIP_STORED)
    return buffer.getvalue()


def read_review(data: bytes) -> tuple[Review, dict[str, bytes]]:
    """A review and the pictures in its file, by hash.

    Raises:
        ReviewFileError: It is no such file, or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            infos = {info.filename: info for info in file.infolist()[: SESSION_PICTURES.value + 1]}
            if CONTENT not in infos:
                raise ReviewFileError(
                    f"This is no saved review: {CONTENT} is missing. Choose a file from “Save review”."
                )
            if infos[CONTENT].file_size > JSON_MB.bytes:
                raise ReviewFileError(f"The review is larger than {JSON_MB.value} MB.")
            review = Review.model_validate_json(_content(file, infos[CONTENT]))
            wanted = [info for name, info in infos.items() if name.startswith(PICTURES)]
            if sum(info.file_size for info in wanted) > SESSION_MB.bytes:
                raise ReviewFileError(f"The pictures in this review take more than {SESSION_MB.value:,} MB.")
            pictures = {info.filename.removeprefix(PICTURES): _content(file, info) for info in wanted}
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(map(str, first["loc"]))
        raise ReviewFileError(f"This review cannot be read: {place or CONTENT}: {first['msg']}.") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise ReviewFileError("This is no saved review: it is no readable ZIP file.") from error
    if review.format > FORMAT:
        raise ReviewFileError(f"This review was saved by HemaZoo {review.version}, which is newer. Update HemaZoo.")
    return review, pictures


def _content(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Content of a member, never more than its header says."""
    with file.open(info) as stream:
        return stream.read(info.file_size)
