"""Original frame of each augmented picture: groups of copies vote, then every picture is checked by itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.audit import measure
from training.audit.copies import Copies
from training.audit.matching import FRAME_INLIERS, Features, FrameIndex, compare, detect, scaled_grey
from training.audit.measure import Measured
from training.audit.parallel import spread
from zoo.data import DataError
from zoo.data.table import natural
from zoo.files import write_json
from zoo.imaging.decode import SUFFIXES, PictureError, decode
from zoo.progress import progress_bar

VERSION = 4  # of the answers that are kept: raise when how a frame is chosen changes
VOTERS = 6  # best pictures of a group, and as many of its others, that are compared with all frames
SAME_COLOUR = 0.7  # levels of 255
CLEAR_INLIERS = 2 * FRAME_INLIERS  # of one picture that name a frame, whatever the others say
JOB = 16
MIN_PARALLEL = 60  # pictures below which no process is started


@dataclass(frozen=True)
class Cells:
    """Source cell of each row.

    Attributes:
        cell: The photograph that each row comes from, None where unknown.
        subject: What is on it: the same where several photographs show one field.
        frames: Names of the originals that were found.
    """

    cell: tuple[str | None, ...]
    subject: tuple[str, ...]
    frames: frozenset[str]


def cells_of_copies(measured: Measured, copies: Copies) -> Cells:
    """Source cells known from the pictures alone; a picture without a copy is a cell of its own."""
    readable = measured.readable
    cell = [f"cell-{number}" if ok else None for number, ok in zip(copies.cell.tolist(), readable, strict=True)]
    subject = tuple(f"subject-{number}" for number in copies.same_thing.tolist())
    return Cells(tuple(cell), subject, frozenset())


def cells_of_originals(measured: Measured, copies: Copies, originals: Path) -> Cells:
    """Source cells named after the frames under `originals`; groups without a frame keep a name of their own.

    A single picture that neither a frame nor another picture resembles has no known cell. Raises DataError if there is
    no frame.
    """
    names, frames = read_frames(originals)
    content = json.dumps([VERSION, names, [hashlib.sha256(f.descriptors.tobytes()).hexdigest() for f in frames]])
    kept = measured.folder.parent / f"frames-{hashlib.sha256(content.encode()).hexdigest()[:24]}.json"
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = _frames_of_rows(measured, copies, names, frames)
        write_json(kept, found)
    sizes = Counter(copies.cell.tolist())
    cell = []
    for row, ok in enumerate(measured.readable.tolist()):
        number = int(copies.cell[row])
        alone = f"no-original-{number}" if sizes[number] > 1 else None
        cell.append((found[row] or alone) if ok else None)
    subject = _subjects(cell, copies)
    return Cells(tuple(cell), subject, frozenset(filter(None, found)))


def read_frames(originals: Path) -> tuple[list[str], list[Features]]:
    """Names (file stems) and local features of all frames below a folder. Raises DataError if there is none."""
    paths = sorted((p for p in originals.rglob("*") if p.suffix.lower() in SUFFIXES), key=lambda p: natural(p.name))
    names, frames = [], []
    for path in progress_bar(paths, "reading originals", unit="frame", disable=not paths):
        try:
            pixels = np.asarray(decode(path))
        except PictureError as error:
            raise DataError(f"{path}: {error} Remove it, or copy the originals again.") from error
        names.append(path.stem)
        frames.append(detect(scaled_grey(pixels)))
    if not frames:
        raise DataError(f"There are no original frames under {originals}. Name the folder that holds their pictures.")
    return names, frames


def _frames_of_rows(measured: Measured, copies: Copies, names: list[str], frames: list[Features]) -> list[str | None]:
    """Name of the frame that each row was made from, None where nothing resembles it."""
    rows = np.flatnonzero(measured.readable).tolist()
    groups = _rows_by(copies.cell, rows)
    keypoints = np.asarray(measured["keypoints"])
    voters = [row for group in groups.values() for row in _voters(sorted(group, key=lambda r: -int(keypoints[r])))]
    answers = _search(measured, voters, names, frames, "searching originals")
    voted = {number: _winner([answers[row] for row in group if row in answers]) for number, group in groups.items()}
    candidates = _candidates(copies, answers, groups, voted)
    by_name = dict(zip(names, frames, strict=True))
    found, doubtful = _choose(measured, copies, _rows_by(copies.same_thing, rows), candidates, by_name)
    again = _search(measured, [row for row in doubtful if row not in answers], names, frames, "searching once more")
    clear: dict[int, Counter[str]] = defaultdict(Counter)
    for row, frame in enumerate(found):
        if frame is not None:
            clear[int(copies.cell[row])][frame] += 1
    for row in doubtful:
        number = int(copies.cell[row])
        of_group = clear[number].most_common(1)[0][0] if clear[number] else voted[number]
        alone = _winner([again.get(row) or answers.get(row) or []])
        # a picture that matches nothing by itself goes with the pictures that it is a copy of
        found[row] = of_group if len(groups[number]) > VOTERS else alone or of_group
    return found


def _rows_by(numbers: np.ndarray, rows: list[int]) -> dict[int, list[int]]:
    """Rows by their number."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        groups[int(numbers[row])].append(row)
    return groups


def _candidates(
    copies: Copies,
    answers: dict[int, list[tuple[str, int]]],
    groups: dict[int, list[int]],
    voted: dict[int, str | None],
) -> dict[int, set[str]]:
    """Frames by near group that were named for one of its pictures.

    Photographs of one field are easily taken for each other: each picture chooses among all of them.
    """
    found: dict[int, set[str]] = defaultdict(set)
    for row, answer in answers.items():
        found[int(copies.same_thing[row])].update(name for name, count in answer if count >= CLEAR_INLIERS)
    for number, group in groups.items():
        found[int(copies.same_thing[group[0]])].update(filter(None, [voted[number]]))
    return found


def _choose(
    measured: Measured,
    copies: Copies,
    subjects: dict[int, list[int]],
    candidates: dict[int, set[str]],
    by_name: dict[str, Features],
) -> tuple[list[str | None], list[int]]:
    """The candidate that each row fits best, and the rows that fit none."""
    alike = _same_exposure(copies)
    found: list[str | None] = [None] * len(measured.problems)
    doubtful = []
    for subject, group in progress_bar(subjects.items(), "checking pictures", unit="subject"):
        choices = sorted(candidates[subject])
        counts = {
            row: np.array([compare(measured.features(row), by_name[name]).inliers for name in choices]) for row in group
        }
        sums = _summed(_summed(counts, alike), alike)
        voices = _summed(_summed({row: np.ones(1) for row in counts}, alike), alike)
        for row, own in counts.items():
            if choices and max(own.max(), sums[row].max() / voices[row][0]) >= FRAME_INLIERS:
                found[row] = choices[int(sums[row].argmax())]
            else:
                doubtful.append(row)
    return found, doubtful


def _voters(ranked: list[int]) -> list[int]:
    """The best of a group, and some of all the others: a group may hold two photographs."""
    rest = ranked[VOTERS:]
    return ranked[:VOTERS] + rest[:: max(1, -(-len(rest) // VOTERS))]


def _summed(counts: dict[int, np.ndarray], alike: dict[int, list[int]]) -> dict[int, np.ndarray]:
    """Inliers of each row and its copies of one exposure, added: their sum is more reliable than each alone."""
    return {
        row: np.sum([own, *[counts[other] for other in alike[row] if other in counts]], axis=0)
        for row, own in counts.items()
    }


def _same_exposure(copies: Copies) -> dict[int, list[int]]:
    """Row → rows linked to it whose colours are the same after alignment."""
    found = defaultdict(list)
    links = copies.links
    same = (links.inliers > 1) & (np.abs(links.shifts).max(1, initial=0) < SAME_COLOUR)
    for first, second in links.pairs[same].tolist():
        found[first].append(second)
        found[second].append(first)
    return found


def _winner(answers: list[list[tuple[str, int]]]) -> str | None:
    """The frame with most inliers in all, if half of the answers name it clearly."""
    votes: Counter[str] = Counter()
    named: Counter[str] = Counter()
    for answer in answers:
        if answer and answer[0][1] >= FRAME_INLIERS and (len(answer) < 2 or answer[0][1] > answer[1][1]):
            votes[answer[0][0]] += answer[0][1]
            named[answer[0][0]] += 1
    best = votes.most_common(1)[0][0] if votes else None
    return best if best is not None and 2 * named[best] >= len(answers) else None


def _subjects(cell: list[str | None], copies: Copies) -> tuple[str, ...]:
    """Rows of one near group show one thing, and so do rows of one frame, whatever group they are in."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    keys = [f"subject-{number}" for number in copies.same_thing.tolist()]
    for key, name in zip(keys, cell, strict=True):
        if name is not None:
            parent[root(f"cell {name}")] = root(key)
    return tuple(root(key) for key in keys)


def _search(
    measured: Measured, rows: list[int], names: list[str], frames: list[Features], title: str
) -> dict[int, list[tuple[str, int]]]:
    jobs = [rows[start : start + JOB] for start in range(0, len(rows), JOB)]
    start = (measured.folder, names, frames)
    found: dict[int, list[tuple[str, int]]] = {}
    for job, answers in zip(
        jobs, spread(_ask, jobs, title, "image", _open, start, MIN_PARALLEL, weight=len), strict=True
    ):
        found.update(zip(job, answers, strict=True))
    return found


_state: tuple[Measured, FrameIndex] | None = None


def _open(folder: Path, names: list[str], frames: list[Features]) -> None:
    global _state
    _state = (measure.open_columns(folder), FrameIndex(names, frames))


def _ask(rows: list[int]) -> list[list[tuple[str, int]]]:
    assert _state is not None, "the process was not started by _open"
    measured, index = _state
    return [index.search(measured.features(row)) for row in rows]
