"""A model of the zoo in memory: what its folder says, and where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from zoo.entry.schema import Config, Elsewhere, Evaluation
from zoo.entry.weights import Weights
from zoo.scores import label_mapping


class Origin(Protocol):
    """Where an entry's files come from that are not on this computer yet."""

    def fetch(self, name: str) -> None:
        """Fetch a file if the entry has it and it is not here. Raises EntryError if it cannot be had."""


@dataclass(frozen=True)
class Entry:
    """One model of the zoo. A broken one has a `reason` and no `config`."""

    id: str
    folder: Path
    config: Config | None
    evaluation: Evaluation
    weights: Weights | None
    reason: str | None = None
    members: tuple[Entry, ...] = ()
    origin: Origin | None = None

    def file(self, name: str) -> Path:
        """Where one of its files lies, or would. From the Hub it is fetched first.

        Raises EntryError if it cannot be had.
        """
        if self.origin is not None:
            self.origin.fetch(name)
        return self.folder / name

    @property
    def ok(self) -> bool:
        """Whether the entry could be read."""
        return self.config is not None

    @property
    def usable(self) -> bool:
        """Whether the entry can classify: readable and its weights are here (an ensemble's: its members')."""
        return self.ok and self.weights is not None

    def among(self, shares: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Probabilities (n, len(labels)) of a member, as probabilities of the entry's own labels."""
        same = (self.config.zoo.same if self.config else None) or {}
        return label_mapping.among(shares, labels, self.labels, same)

    def asked(self, label: str, member: Entry) -> int:
        """Which of a member's classes stands for one of the entry's labels: that of its name, else the first of it."""
        if label in member.labels:
            return member.labels.index(label)
        same = (self.config.zoo.same if self.config else None) or {}
        return next(place for place, name in enumerate(member.labels) if same.get(name) == label)

    @property
    def shares(self) -> list[float]:
        """What each member of an ensemble counts, adding up to 1."""
        given = self.config.zoo.member_weights if self.config else None
        return given or [1 / max(len(self.members), 1)] * len(self.members)

    @property
    def counted(self) -> list[tuple[Entry, float]]:
        """An ensemble's members that have a share in its answers, with it; the others need not be asked."""
        return [(member, share) for member, share in zip(self.members, self.shares, strict=True) if share > 0]

    @property
    def networks(self) -> list[Entry]:
        """Those that answer for it: itself, or an ensemble's members that count."""
        return [member for member, _ in self.counted] or [self]

    @property
    def elsewhere(self) -> Elsewhere | None:
        """What is known of its kind in laboratories it never saw; of one model asked for other labels, that model's."""
        only = self.members[0].elsewhere if len(self.members) == 1 else None
        return self.evaluation.elsewhere or only

    @property
    def title(self) -> str:
        """The model's name for people; the id where it is broken."""
        return self.config.zoo.title if self.config else self.id

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the network's outputs; none where the entry is broken."""
        return self.config.label_names if self.config else []

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the model was trained by, as its config keeps it; empty where it keeps none."""
        recipe = (self.config.zoo.model_extra or {}).get("recipe") if self.config else None
        return recipe if isinstance(recipe, dict) else {}

    @property
    def views(self) -> int:
        """How many turned and mirrored views of a picture it looks at."""
        return self.config.zoo.views if self.config else 1

    def with_views(self, count: Literal[1, 2, 4, 8]) -> Entry:
        """The entry looking at so many views of a picture; an ensemble's members each."""
        if self.config is None:
            return self
        changed = self.config.model_copy(update={"zoo": self.config.zoo.model_copy(update={"views": count})})
        return replace(self, config=changed, members=tuple(member.with_views(count) for member in self.members))

    @property
    def system(self) -> str:
        """Letter of the published system that the model is an account of; empty for all others."""
        found = self.recipe.get("system", "")
        return found if isinstance(found, str) else ""

    @property
    def data(self) -> str:
        """Name of the data set that the model was trained on; empty where it is not told."""
        data = self.recipe.get("data")
        found = data.get("name", "") if isinstance(data, dict) else ""
        return found if isinstance(found, str) else ""

    @property
    def mixed(self) -> tuple[str, ...]:
        """The data sets that were joined for its training; none where it was one."""
        data = self.recipe.get("data")
        mix = data.get("mix") if isinstance(data, dict) else None
        return tuple(map(str, mix)) if isinstance(mix, dict) else ()

    def describe(self, label: str) -> str:
        """The label, with its description where the entry has one."""
        text = self.config.label_descriptions.get(label) if self.config else None
        return f"{label}: {text}" if text else label
