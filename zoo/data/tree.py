"""Files of a data set by their relative names, whether they lie in a folder, an archive or memory."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image

from zoo.data.table import DataError, FileSource, Source, natural
from zoo.files import printable
from zoo.imaging.decode import SUFFIXES, decode
from zoo.limits import SET_FILES, SET_LEVELS, TABLE_MB

SYSTEM_FILES = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"))
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
CHECKPOINTS = frozenset(("checkpoint", "checkpoints"))
SYSTEM_REASON = "hidden, system or checkpoint file"
TWICE = "a second file of the same name; the first one counts"
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
NOT_REGULAR = "no regular file (a link, device or pipe)"


@dataclass(frozen=True)
class Stored:
    """A file on disk, or (`data`) one that was uploaded and stays in memory; `path` is then only its name."""

    path: Path
    data: bytes | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def open(self) -> BinaryIO:
        """Open the file for reading. Raises OSError if it is gone."""
        return self.path.open("rb") if self.data is None else BytesIO(self.data)

    def version(self) -> Hashable:
        """Key that differs for another file and for changed content. Raises OSError if it is gone."""
        if self.data is not None:
            return self._digest
        facts = self.path.stat()
        return str(self.path), facts.st_mtime_ns, facts.st_size

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.data or b"").hexdigest()


class Tree(ABC):
    """Files of a data set.

    Attributes:
        place: What the person named.
        name: Name of the data set.
        entry: The one file of the folder that the person named, or None.
        passed: Name of what is passed over → the reason.
    """

    place: Path
    name: str
    entry: str | None = None
    passed: dict[str, str]

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """Relative names of all files in natural order, without system files."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of a text file. Raises DataError if it cannot be read or is too large."""

    @abstractmethod
    def source(self, name: str) -> Source:
        """The picture of this name."""

    @abstractmethod
    def stored(self, name: str) -> Stored:
        """The file, for readers that seek in it. Raises DataError if it is damaged."""

    @property
    def offered(self) -> tuple[str, ...]:
        """The file that the person named, else all files."""
        return (self.entry,) if self.entry else self.files

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """Names of the picture files."""
        return tuple(name for name in self.files if is_picture(name))


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (asked of every file, and much quicker)


def is_system_file(part: str) -> bool:
    """Whether a file or folder of this name belongs to a system or program, not to the data set."""
    return part.startswith(".") or part.casefold() in SYSTEM_FILES


def is_ignored(name: str) -> bool:
    """Whether a file of this relative name is hidden, a system file, or lies in such a folder or among checkpoints."""
    *folders, last = PurePosixPath(name).parts
    return is_system_file(last) or any(is_system_file(part) or part.casefold() in CHECKPOINTS for part in folders)


@dataclass
class FolderTree(Tree):
    """Files below a folder; links are followed, but never to a folder that is being walked already."""

    place: Path
    entry: str | None = None
    passed: dict[str, str] = field(default_factory=dict)
    _odd: dict[str, str] = field(default_factory=dict)  # escaped name → the file's own, where they differ

    @property
    def root(self) -> Path:
        """The folder that names are relative to."""
        return self.place.parent if self.entry else self.place

    @property
    def name(self) -> str:  # type: ignore[override]
        """The folder's name, or that of the file without its suffix."""
        return self.place.stem if self.entry else self.place.name

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Relative names of all files in natural order. Raises DataError if there are too many."""
        found: list[str] = []
        for own in self._walk(self.root, "", frozenset()):
            name = printable(own)
            if name != own:
                self._odd[name] = own
            found.append(name)
            if len(found) > SET_FILES.value:
                raise DataError(f"{self.root} holds more than {SET_FILES.value:,} files. Name a folder with fewer.")
        return tuple(found)

    def _walk(self, folder: Path, prefix: str, inside: frozenset[Path]) -> Iterator[str]:
        real = folder.resolve()
        if real in inside:
            self.passed[prefix.rstrip("/")] = "The folder is a link to one that holds it; it was not followed."
            return
        if len(inside) >= SET_LEVELS.value:
            self.passed[prefix.rstrip("/")] = (
                f"It lies below {SET_LEVELS.value} levels of folders; it was not followed."
            )
            return
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if not prefix:
                raise
            self.passed[prefix.rstrip("/")] = f"The folder cannot be read: {error.strerror}."
            return
        for entry in sorted(entries, key=lambda e: natural(e.name)):
            name, is_folder = prefix + entry.name, _is_folder(entry)
            if is_system_file(entry.name) or (is_folder and entry.name.casefold() in CHECKPOINTS):
                self.passed[name] = SYSTEM_REASON
            elif is_folder:
                yield from self._walk(folder / entry.name, f"{name}/", inside | {real})
            elif _may_be_read(entry):
                yield name
            else:
                self.passed[name] = NOT_REGULAR

    def read(self, name: str) -> bytes:
        """Content of a text file."""
        path = self._local(name)
        if path.stat().st_size > TABLE_MB.bytes:
            raise DataError(f"{name} is larger than {TABLE_MB.value} MB.")
        return path.read_bytes()

    def source(self, name: str) -> FileSource:
        """The picture of this name."""
        return FileSource(self._local(name))

    def stored(self, name: str) -> Stored:
        """The file itself."""
        return Stored(self._local(name))

    def _local(self, name: str) -> Path:
        return self.root / self._odd.get(name, name)


@dataclass(frozen=True)
class BytesSource:
    """A picture file in memory."""

    data: bytes

    def content(self) -> bytes:
        """The file's bytes."""
        return self.data

    def image(self) -> Image.Image:
        """The decoded picture."""
        return decode(self.data)


class MemoryTree(Tree):
    """Files that were uploaded: relative name → content. Nothing is written to disk."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        self.place, self.name, self.passed = Path(name), name, {}
        self._content: dict[str, bytes] = {}
        for given, data in files.items():
            clean = safe_name(given, name)
            if is_ignored(clean):
                self.passed[clean] = SYSTEM_REASON
            elif clean in self._content:
                self.passed[f"{clean} (again)"] = TWICE
            else:
                self._content[clean] = data

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Relative names of the files in natural order."""
        return tuple(sorted(self._content, key=natural))

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return self._content[name]

    def source(self, name: str) -> BytesSource:
        """The picture of this name."""
        return BytesSource(self._content[name])

    def stored(self, name: str) -> Stored:
        """The uploaded file."""
        return Stored(Path(name), self._content[name])


def safe_name(name: str, where: str) -> str:
    """A relative name with forward slashes. Raises DataError if it leads out of its folder."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or DRIVE.match(name) or "\0" in name:
        raise DataError(
            f"{where} holds a file called {name!a}, which leads out of it. It is refused; pack the folder again."
        )
    return printable("/".join(part for part in parts if part not in ("", ".")))


def text_of(tree: Tree, name: str) -> str:
    """A text file, in UTF-8, UTF-16 or UTF-32, else in Windows' western code page. Raises DataError."""
    raw = tree.read(name)
    if wide := _wide_encoding(raw):
        return raw.decode(wide, "replace").removeprefix("\ufeff")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _wide_encoding(raw: bytes) -> str | None:
    """UTF-32 or UTF-16 by its mark; UTF-16 without a mark by the zeros in every second byte. None for others."""
    for mark, encoding in MARKS.items():
        if raw.startswith(mark):
            return encoding
    head = raw[:1000]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 4 and not min(even, odd):
        return "utf-16-le" if odd else "utf-16-be"
    return None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_read(entry: os.DirEntry) -> bool:
    """Whether it is a file, or a dangling link, of which the reader tells that it cannot be opened."""
    try:
        return entry.is_file() or (entry.is_symlink() and not _leads_to_device(entry))
    except OSError:
        return True


def _leads_to_device(entry: os.DirEntry) -> bool:
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False
