"""Samples: which kinds of cells to expect, as weights that `priors` applies to a network's probabilities.

The samples of the project stand in `samples.toml`. A person's own sample is a TOML file with shares, or with the counts
of earlier slides:

    name = "our clinic"
    summary = "Adults seen in our clinic"
    [shares]            # percent; or [counts], cells counted so far
    neutrophil = 61
    lymphocyte = 29
    [odds]              # of further kinds, against the average of those above; 0 rules a kind out
    ig = 0.02
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.scores.sample.priors import apply_prior, flatten

FILE = Path(__file__).with_name("samples.toml")
BLOOD, ALIKE, ONLY = "peripheral blood", "alike", "only these kinds"
ONLY_PREFIX = "only:"  # of a list of kinds in place of a sample's name, as in "only:neutrophil,lymphocyte"
OTHER_ODDS = 0.01  # of kinds that a person's own file does not name
EXTRA_COUNT = 1.0  # added to each count, so that a kind that was not seen yet is not ruled out
MAX_FILE_BYTES = 100_000
MAX_NAME = 80  # characters


class SampleError(ValueError):
    """A sample that cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class Sample:
    """A kind of sample.

    Attributes:
        name: Its name for people, commands and files.
        summary: What it is, in a sentence.
        source: Where the shares come from.
        weights: Kind → weight; only ratios count.
        other: Weight of a kind that is not named.
        as_trained: Whether the weights multiply the shares that a network was trained with, instead of replacing them.
    """

    name: str
    summary: str = ""
    source: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    other: float = 1.0
    as_trained: bool = False

    def prior(self, labels: Sequence[str], trained: np.ndarray) -> np.ndarray:
        """Share of each label in the sample, (K,), summing to 1.

        Args:
            labels: A network's K labels.
            trained: The shares it was trained with, (K,).

        Raises:
            SampleError: The sample rules out every label, or names a kind that nobody knows.
        """
        unknown = sorted(set(self.weights) - set(labels) - known_kinds())
        if unknown:
            raise SampleError(
                f"The sample “{self.name}” names {', '.join(unknown)}, which is no class of this model and no known "
                f"kind. Its classes: {', '.join(labels)}."
            )
        weights = np.array([self.weights.get(label, self.other) for label in labels], np.float64)
        weights = weights * trained if self.as_trained else weights
        if not weights.sum() > 0:
            raise SampleError(
                f"The sample “{self.name}” rules out every class of this model. Its classes: {', '.join(labels)}."
            )
        return weights / weights.sum()

    def apply(self, probabilities: np.ndarray, labels: Sequence[str], trained: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of a network as probabilities in this sample.

        Args:
            probabilities: The network's, (n, K).
            labels: Its K labels.
            trained: The shares it was trained with, (K,).

        Raises:
            SampleError: As `prior`.
        """
        return apply_prior(probabilities, self.prior(labels, trained), trained)


class _Definition(BaseModel):
    """A sample in `samples.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    summary: str
    source: str
    shares: dict[str, float] = {}
    odds: dict[str, float] = {}
    as_trained: bool = False
    only: bool = False


class _OwnDefinition(BaseModel):
    """A person's own sample file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field("", max_length=MAX_NAME)
    summary: str = Field("", max_length=300)
    shares: dict[str, float] = {}
    counts: dict[str, int] = {}
    odds: dict[str, float] = {}
    only: bool = Field(False, description="Whether kinds that are not named are ruled out")

    @model_validator(mode="after")
    def _check_numbers(self) -> _OwnDefinition:
        if bool(self.shares) == bool(self.counts):
            raise ValueError("it needs either shares or counts")
        numbers = [*self.shares.values(), *self.counts.values(), *self.odds.values()]
        if not all(np.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("shares, counts and odds are numbers from 0")
        if self.shares and not sum(self.shares.values()) > 0:
            raise ValueError("not all shares can be 0")
        return self


@cache
def _content() -> tuple[float, dict[str, _Definition]]:
    """The flattening exponent and the samples of `samples.toml`."""
    content: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    flattening = float(content.pop("flattening"))
    return flattening, {name: _Definition.model_validate(part) for name, part in content.items()}


@cache
def known_kinds() -> frozenset[str]:
    """Kinds of cells that any sample of the project names."""
    return frozenset(kind for one in _content()[1].values() for kind in (*one.shares, *one.odds))


def flattening() -> float:
    """The fitted exponent of reference shares."""
    return _content()[0]


def reference_shares(name: str = BLOOD) -> dict[str, float]:
    """Reference shares of a sample of the project, in percent, before flattening."""
    return dict(_content()[1][name].shares)


def samples(exponent: float | None = None) -> dict[str, Sample]:
    """The samples of the project by name.

    Args:
        exponent: Flattening of the reference shares; None for the fitted one.
    """
    fitted, definitions = _content()
    return {
        name: _with_weights(Sample(name, one.summary, one.source), one, fitted if exponent is None else exponent)
        for name, one in definitions.items()
    }


def only_these(kinds: Iterable[str]) -> Sample:
    """The sample that holds the kinds named and no others, all alike. Raises SampleError if none is named."""
    named = list(dict.fromkeys(kinds))
    if not named:
        raise SampleError(f"“{ONLY}” needs the kinds: for instance {ONLY_PREFIX}neutrophil,lymphocyte.")
    base = samples()[ONLY]
    return replace(base, name=f"{ONLY}: {', '.join(named)}", weights=dict.fromkeys(named, 1.0), other=0.0)


def from_counts(counts: Mapping[str, float], name: str = "earlier slides") -> Sample:
    """The sample that earlier counts suggest; one cell is added to each kind, so that none is ruled out."""
    shares = {kind: count + EXTRA_COUNT for kind, count in counts.items()}
    mean = sum(shares.values()) / len(shares)
    weights = {kind: share / mean for kind, share in shares.items()}
    return Sample(name, "Shares from counts of earlier slides.", "Counts", weights, OTHER_ODDS)


def find_sample(text: str) -> Sample:
    """The sample that a name, a list of kinds or the path of a TOML file means.

    Args:
        text: A name of `samples` (hyphens count as spaces), "only:KIND,KIND…", or a path ending in .toml.

    Raises:
        SampleError: There is no such sample, or the file cannot be used.
    """
    known = samples()
    name = " ".join(text.replace("-", " ").split()).lower()
    if text.startswith(ONLY_PREFIX):
        return only_these(kind.strip() for kind in text.removeprefix(ONLY_PREFIX).split(",") if kind.strip())
    if text.lower().endswith(".toml"):
        return read_sample(Path(text))
    if name == ONLY:
        return only_these(())  # raises, and says how to name them
    if name in known:
        return known[name]
    raise SampleError(
        f"There is no sample “{text}”. Choose {', '.join(n for n in known if n != ONLY)}, {ONLY_PREFIX}KIND,KIND… or a "
        "file of your own that ends in .toml."
    )


def read_sample(path: Path) -> Sample:
    """A person's own sample. Raises SampleError with what is wrong in the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SampleError(f"{path} is too large for a sample file.")
        return parse_sample(path.read_bytes(), str(path))
    except OSError as error:
        raise SampleError(f"{path} cannot be read: {error.strerror}.") from error


def parse_sample(content: bytes, file: str) -> Sample:
    """A person's own sample from the content of a file called `file`. Raises SampleError with what is wrong in it."""
    try:
        if len(content) > MAX_FILE_BYTES:
            raise SampleError(f"{file} is too large for a sample file.")
        own = _OwnDefinition.model_validate(tomllib.loads(content.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SampleError(f"{file} is not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise SampleError(f"{file} is not a sample: {f'{where}: ' if where else ''}{reason}.") from error
    path = Path(file)
    name = own.name or path.stem
    if own.counts:
        counted = from_counts(own.counts, name)
        return replace(
            counted,
            summary=own.summary or counted.summary,
            weights={**counted.weights, **own.odds},
            other=0.0 if own.only else OTHER_ODDS,
        )
    mean = sum(own.shares.values()) / len(own.shares)
    weights = {kind: share / mean for kind, share in own.shares.items()} | own.odds
    return Sample(name, own.summary, path.name, weights, 0.0 if own.only else OTHER_ODDS)


def _with_weights(sample: Sample, definition: _Definition, exponent: float) -> Sample:
    kinds = list(definition.shares)
    weights = dict(zip(kinds, flatten(np.array(list(definition.shares.values())), exponent).tolist(), strict=True))
    other = 0.0 if definition.only else 1.0
    return replace(sample, weights=weights | definition.odds, other=other, as_trained=definition.as_trained)
