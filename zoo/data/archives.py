"""ZIP and TAR archives read in place: no member is written under its own name, hostile archives are refused.

A compressed TAR has no index, so it is decompressed once, as a whole: into the cache, or into memory for an upload.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from zoo.cache import cache_folder
from zoo.data.kinds import kind_of
from zoo.data.table import DataError, Source, natural, split_name
from zoo.data.tree import NOT_REGULAR, SYSTEM_REASON, TWICE, Stored, Tree, is_ignored, safe_name
from zoo.files import atomic_path
from zoo.imaging.decode import PictureError, decode
from zoo.limits import ARCHIVE_MB, ARCHIVE_RATIO, PICTURE_MB, SESSION_MB, SET_FILES, TABLE_MB

SMALL = 100_000_000  # bytes that an archive may hold whatever its own size
LZMA_MEMORY = 256_000_000
BLOCK = 1 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a ZIP member: signature, length of name and of extra field
SUFFIXES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
PACKED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz"}  # beginnings of compressed files
ZIP_BEGINNINGS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
UTF8_NAME = 0x800  # flag of a ZIP member whose name is UTF-8
BROKEN = (
    *(zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError),
    *(OverflowError, NotImplementedError, struct.error),
)


@dataclass(frozen=True)
class MemberSource:
    """A picture in an archive: `packed` bytes from `start` on that hold `size` bytes; `kind` is how they are stored."""

    file: Stored
    kind: str  # tar, stored or deflated
    start: int
    packed: int
    size: int
    checksum: int = 0

    def content(self, most: int | None = None) -> bytes:
        """The member's bytes. Raises PictureError if the archive is damaged, or the member larger than `most` bytes."""
        most = most or PICTURE_MB.bytes
        if self.size > most:
            raise PictureError(f"The file is {self.size / 1e6:.1f} MB; at most {most // 1_000_000} MB are accepted.")
        try:
            with self.file.open() as file:
                data = self._data(file)
        except OSError as error:
            raise PictureError(f"{self.file.name} cannot be read: {error.strerror}.") from error
        except (zlib.error, struct.error) as error:
            raise self._damaged() from error
        if len(data) != self.size or (self.kind != "tar" and zlib.crc32(data) != self.checksum):
            raise self._damaged()
        return data

    def image(self) -> Image.Image:
        """The decoded picture."""
        return decode(self.content())

    def _data(self, file: BinaryIO) -> bytes:
        file.seek(self.start)
        if self.kind == "tar":
            return file.read(self.size)
        signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        if signature != b"PK\3\4":
            raise self._damaged()
        file.seek(self.start + LOCAL_HEADER.size + name + extra)
        raw = file.read(self.packed)
        # one byte more than declared is enough to notice a lie
        return raw if self.kind == "stored" else zlib.decompressobj(-15).decompress(raw, self.size + 1)

    def _damaged(self) -> PictureError:
        return PictureError(f"{self.file.name} is damaged here. Download or pack it again.")


class ArchiveTree(Tree):
    """Members of an archive."""

    def __init__(self, file: Stored, members: dict[str, MemberSource], passed: dict[str, str]) -> None:
        self.place, self.name, self.passed, self._members = file.path, archive_stem(file.path), passed, members
        self._in_memory = file.data is not None
        self._files = tuple(sorted(members, key=natural))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the members in natural order."""
        return self._files

    def read(self, name: str) -> bytes:
        """Content of a text file."""
        try:
            return self._members[name].content(TABLE_MB.bytes)
        except PictureError as error:
            raise DataError(f"{name} in {self.place.name}: {error}") from error

    def source(self, name: str) -> MemberSource:
        """The picture of this name."""
        return self._members[name]

    def stored(self, name: str) -> Stored:
        """A copy of the member in the cache, or in memory if the archive was uploaded."""
        member = self._members[name]
        if self._in_memory:
            return Stored(Path(name), self.read(name))
        target = _cached(self.place, name) / Path(name).name
        if not target.exists():
            try:
                content = member.content(ARCHIVE_MB.bytes)
            except PictureError as error:
                raise DataError(f"{name} in {self.place.name}: {error}") from error
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        return Stored(target)


class OpenedTree(Tree):
    """Files of a tree, and those in its archives, each below its archive's name."""

    def __init__(self, outer: Tree, archives: Sequence[str]) -> None:
        self.place, self.name, self.passed = outer.place, outer.name, dict(outer.passed)
        self._places: dict[str, tuple[Tree, str]] = {}
        packed = set(archives)
        self._places |= {name: (outer, name) for name in outer.files if name not in packed}
        for archive in archives:
            try:
                inner = open_archive(outer.stored(archive))
            except DataError as error:  # the other archives may be sound
                self.passed[archive] = str(error)
                continue
            prefix = _prefix(archive, inner, alone=len(archives) == 1 and not self._places)
            self.passed |= {f"{prefix}{name}": why for name, why in inner.passed.items()}
            for name in inner.files:
                shown = f"{prefix}{name}"
                if shown in self._places:
                    self.passed[f"{shown} (again)"] = TWICE
                else:
                    self._places[shown] = inner, name
            if len(self._places) > SET_FILES.value:
                raise DataError(f"{self.place} holds more than {SET_FILES.value:,} files. Name a folder with fewer.")
        self._files = tuple(sorted(self._places, key=natural))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in natural order."""
        return self._files

    def read(self, name: str) -> bytes:
        """Content of a text file."""
        tree, inner = self._places[name]
        return tree.read(inner)

    def source(self, name: str) -> Source:
        """The picture of this name."""
        tree, inner = self._places[name]
        return tree.source(inner)

    def stored(self, name: str) -> Stored:
        """The file, for readers that seek in it."""
        tree, inner = self._places[name]
        return tree.stored(inner)


def with_archives(tree: Tree) -> Tree:
    """The tree with the archives in it opened, where it has no pictures of its own; else the tree as it is."""
    archives = [name for name in tree.files if is_archive(Path(name))] if tree.entry is None else []
    return OpenedTree(tree, archives) if archives and not tree.pictures else tree


def _prefix(archive: str, inner: Tree, alone: bool) -> str:
    """The folder to list an archive's files in: none where it would repeat the archive's own, or tell nothing."""
    stem = archive_stem(Path(archive))
    top = {name.partition("/")[0].casefold() for name in inner.files}
    telling = split_name(stem) or kind_of(stem)
    if top == {stem.casefold()} or (alone and not telling):
        return ""
    return f"{(Path(archive).parent / stem).as_posix()}/"


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def archive_stem(path: Path) -> str:
    """Name of an archive without its suffixes."""
    return path.name.removesuffix(path.suffix).removesuffix(".tar")


def open_archive(file: Stored) -> ArchiveTree:
    """The members of an archive, whose contents decide of what kind it is.

    Raises DataError if it is damaged, encrypted, a bomb, or leads out of itself.
    """
    try:
        with file.open() as raw:
            head = raw.read(8)
        if head.startswith(ZIP_BEGINNINGS):
            return _open_zip(file)
        kind = next((kind for beginning, kind in PACKED.items() if head.startswith(beginning)), "")
        return _open_tar(file, kind)
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(f"{file.name} is no archive, or a damaged one. Download or pack it again.") from error


def _open_zip(file: Stored) -> ArchiveTree:
    members: dict[str, MemberSource] = {}
    passed: dict[str, str] = {}
    with file.open() as raw, zipfile.ZipFile(raw) as archive:
        check_zip(archive, file)
        for info in archive.infolist():
            name = safe_name(_own_name(info), file.name)
            if info.is_dir():
                continue
            reason = _reason_against(name, info)
            if reason:
                passed[name] = reason
            elif name in members:
                passed[f"{name} (again)"] = TWICE
            else:
                kind = "stored" if info.compress_type == zipfile.ZIP_STORED else "deflated"
                members[name] = MemberSource(
                    file, kind, info.header_offset, info.compress_size, info.file_size, info.CRC
                )
    return ArchiveTree(file, members, passed)


def _own_name(info: zipfile.ZipInfo) -> str:
    """The member's name; macOS writes UTF-8 without saying so, which is then taken for a code page of DOS."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _reason_against(name: str, info: zipfile.ZipInfo) -> str:
    if is_ignored(name):
        return SYSTEM_REASON
    if info.flag_bits & 1:
        return "encrypted; pack the folder again without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in a way that we do not read; pack the folder again as a plain ZIP"
    is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
    return NOT_REGULAR if is_link else ""


def check_zip(archive: zipfile.ZipFile, file: Stored) -> None:
    """Refuse a ZIP file whose members overlap, or hold far more than the file does. Raises DataError."""
    shown = file.name
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    _check_amount(shown, len(infos), sum(i.file_size for i in infos), sum(i.compress_size for i in infos))
    for first, second in pairwise(infos):
        if first.header_offset + LOCAL_HEADER.size + first.compress_size > second.header_offset:
            raise DataError(f"{shown} is refused: its members overlap, as in a ZIP bomb. Pack the folder again.")


def _check_amount(shown: str, count: int, size: int, packed: int) -> None:
    if count > SET_FILES.value:
        raise DataError(f"{shown} holds {count:,} files; at most {SET_FILES.value:,} are read.")
    if size > ARCHIVE_MB.bytes:
        raise DataError(f"{shown} holds {size / 1e6:,.0f} MB; at most {ARCHIVE_MB.value:,} MB are read.")
    if size > max(SMALL, ARCHIVE_RATIO.value * packed):
        raise DataError(
            f"{shown} is refused: {packed / 1e6:.1f} MB that claim to hold {size / 1e6:,.0f} MB are no pictures but a "
            "bomb. Pack the pictures again."
        )


def _open_tar(file: Stored, kind: str) -> ArchiveTree:
    plain = _decompressed(file, kind) if kind else file
    members: dict[str, MemberSource] = {}
    passed: dict[str, str] = {}
    with plain.open() as raw:
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        with tarfile.open(fileobj=raw, mode="r:") as archive:
            for number, info in enumerate(archive):
                if number >= SET_FILES.value:
                    raise DataError(f"{file.name} holds more than {SET_FILES.value:,} files.")
                name = safe_name(info.name, file.name)
                if info.isdir():
                    continue
                if is_ignored(name):
                    passed[name] = SYSTEM_REASON
                elif not info.isreg() or info.issparse() or info.offset_data + info.size > size:
                    passed[name] = NOT_REGULAR
                elif name in members:
                    passed[f"{name} (again)"] = TWICE
                else:
                    members[name] = MemberSource(plain, "tar", info.offset_data, info.size, info.size)
    return ArchiveTree(file, members, passed)


def _cached(path: Path, part: str = "") -> Path:
    """Folder of the cache for what is unpacked of an archive; a changed archive has another."""
    facts = path.stat()
    key = hashlib.sha256(repr((str(path), facts.st_mtime_ns, facts.st_size, part)).encode()).hexdigest()[:24]
    return cache_folder() / "unpacked" / key


def _decompressed(file: Stored, kind: str) -> Stored:
    """The plain TAR file of a compressed one, in the cache, or in memory for an upload."""
    if file.data is not None:
        plain = io.BytesIO()
        _unpack(file, kind, plain, len(file.data))
        return Stored(file.path, plain.getvalue())
    target = _cached(file.path) / "archive.tar"
    if not target.exists():
        with atomic_path(target) as temporary, temporary.open("wb") as output:
            _unpack(file, kind, output, file.path.stat().st_size)
    return Stored(target)


def _unpack(file: Stored, kind: str, plain: BinaryIO, size: int) -> None:
    written = 0
    with file.open() as packed:
        for block in _blocks(packed, kind):
            written += plain.write(block)
            _check_amount(file.name, 1, written, size)
            if file.data is not None and written > SESSION_MB.bytes:
                raise DataError(f"{file.name} unpacks to more than {SESSION_MB.value:,} MB. Use the commands for it.")


def _blocks(packed: BinaryIO, kind: str) -> Iterator[bytes]:
    """Decompressed content, at most BLOCK bytes at a time."""
    if kind == "xz":
        yield from _xz_blocks(packed)
        return
    with gzip.open(packed) if kind == "gz" else bz2.open(packed) as file:
        while block := file.read(BLOCK):
            yield block


def _xz_blocks(packed: BinaryIO) -> Iterator[bytes]:
    # lzma.open has no limit on the memory that a file may ask for
    work = lzma.LZMADecompressor(lzma.FORMAT_XZ, LZMA_MEMORY)
    while not work.eof:
        block = packed.read(BLOCK) if work.needs_input else b""
        if work.needs_input and not block:
            raise EOFError
        yield work.decompress(block, BLOCK)
