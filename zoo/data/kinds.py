"""Names of kinds of cells: one table of synonyms (kinds.toml) and what a person adds to it."""

from __future__ import annotations

import difflib
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zoo.data.table import DataError, DataSet

TABLE = Path(__file__).parent / "kinds.toml"
NO_WORDS = frozenset(("cell", "type", "class", "of", "the", "and", "de", "di", "des"))
OTHERS = "*"  # in a person's table: all labels that neither table knows
LIKENESS = 0.6  # of two names, from which one is offered as the nearest


@dataclass(frozen=True)
class Names:
    """Names given to the labels of a data set.

    Attributes:
        renamed: Label in the data set → label wanted, "" where its pictures are left out. Labels that keep their name
            are not in it.
        unknown: Label that no table knows, and that is kept → the known kind whose name is nearest, or "".
    """

    renamed: Mapping[str, str]
    unknown: Mapping[str, str]

    def name(self, label: str) -> str:
        """The label wanted for a label of the data set."""
        return self.renamed.get(label, label)


def key_of(name: str) -> str:
    """A form of a name that is equal for all its spellings: case, accents, width, plural and order of words."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = re.findall(r"[^\W_]+", re.sub(r"^\W*\d+\W+", "", plain.replace("_", " ")))
    return " ".join(sorted(word for word in map(_singular, words) if word not in NO_WORDS))


def kind_of(label: str) -> str | None:
    """The kind of cell that a label names, or None if no kind is called so."""
    outside, _, inside = label.partition("(")
    keys = (key_of(label), key_of(outside), key_of(inside))
    return next((kind for key in keys if (kind := _kinds().get(key))), None)


def name_labels(labels: Iterable[str], wanted: Mapping[str, str] | None = None) -> Names:
    """The labels of a data set by their kinds; `wanted` (see `read_label_table`) goes first."""
    own = {key_of(label): name for label, name in (wanted or {}).items() if label != OTHERS}
    exact = dict(wanted or {})
    others = exact.pop(OTHERS, None)
    renamed, unknown = {}, {}
    for label in labels:
        found = exact.get(label, own.get(key_of(label), kind_of(label)))
        if found is None and others is not None:
            found = others
        if found is None:
            unknown[label] = nearest_kind(label)
        elif found != label:
            renamed[label] = found
    return Names(renamed, unknown)


def rename(data: DataSet, names: Names) -> DataSet:
    """The data set under other labels, without the pictures whose label is left out."""
    kept, problems = [], dict(data.problems)
    for item in data.items:
        label = None if item.label is None else names.name(item.label)
        if label == "":
            problems[item.file] = f"its label, {item.label}, is left out"
        else:
            kept.append(item if label == item.label else replace(item, label=label))
    return replace(data, items=tuple(kept), problems=problems, notes=tuple(describe(names, data)))


def describe(names: Names, data: DataSet) -> list[str]:
    """Sentences on what the labels of a data set were taken for, with counts."""
    counts = Counter(item.label for item in data.items if item.label is not None)
    by_kind: dict[str, list[str]] = {}
    for label, name in names.renamed.items():
        by_kind.setdefault(name, []).append(f"{label} ({counts[label]:,})")
    lines = [f"Labels: {', '.join(found)} → {name or 'left out'}." for name, found in by_kind.items()]
    for label, nearest in names.unknown.items():
        near = f"; the nearest kind is {nearest}" if nearest else ""
        lines.append(f"Unknown label, kept: {label} ({counts[label]:,} pictures){near}. Rename it with --labels.")
    return lines


def nearest_kind(label: str) -> str:
    """The kind whose name, or a synonym of it, is most like a label; "" if none is."""
    found = difflib.get_close_matches(key_of(label), _kinds(), 1, LIKENESS)
    return _kinds()[found[0]] if found else ""


def read_label_table(path: Path) -> dict[str, str]:
    """A person's TOML table of labels: label in the data set = label wanted. Raises DataError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f'{path} is no table of labels: {error}. Write lines such as "my label" = "monocyte".'
        ) from error
    table = content.get("labels", content)
    wrong = (
        [key for key, value in table.items() if not isinstance(value, str)] if isinstance(table, dict) else ["labels"]
    )
    if wrong:
        raise DataError(f'{path}: {wrong[0]} must be a text. Write lines such as "my label" = "monocyte".')
    return dict(table)


def _singular(word: str) -> str:
    # "eos", "bas" and "pus" are no plurals; nor is what ends in "ss" or "is"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@cache
def _kinds() -> dict[str, str]:
    """Kind by the key of each of its names."""
    found: dict[str, str] = {}
    for kind, names in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        for name in (kind, *names):
            found.setdefault(key_of(name), kind)
    return found
