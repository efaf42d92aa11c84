"""A model of the zoo in memory: what its folder says, and where its files are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from zoo.entry.schema import AcceptanceQuality, Config, Evaluation, OtherLaboratories
from zoo.entry.weights import Weights
from zoo.scores import label_mapping
from zoo.scores.sample.samples import ALIKE, BLOOD, Sample, reference_shares, samples


class Origin(Protocol):
    """Source of an entry's files that are not on this computer yet."""

    def fetch(self, name: str) -> None:
        """Fetch a file if the entry has it and it is not here. Raises EntryError if that fails."""


@dataclass(frozen=True)
class BrokenEntry:
    """An entry that cannot be read, with the reason as a sentence for the user."""

    id: str
    folder: Path
    reason: str


@dataclass(frozen=True)
class TrainedPrior:
    """Share of each label that a network was trained with.

    Attributes:
        shares: In the order of the entry's labels, (K,), summing to 1.
        origin: Where they come from: stored in the entry; its recipe, which balances the classes; an ensemble's
            members; or assumed to be alike.
    """

    shares: np.ndarray
    origin: Literal["stored", "recipe", "members", "assumed"]

    @property
    def source(self) -> str:
        """Origin of the shares, for people."""
        return {
            "stored": "as weighted in its training",
            "recipe": "its recipe balances the classes",
            "members": "those of its members",
            "assumed": "taken as alike: its recipe does not balance the classes, and the entry does not state them",
        }[self.origin]


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        id: Name by which people and commands choose the model.
        folder: Where its files are.
        config: Content of `config.json`.
        evaluation: Content of `evaluation.json`; empty where the file is missing.
        weights: Size of the weights, None where they are not here.
        reason: Why the entry cannot classify, as a sentence; None if it can.
        members: The entries whose answers an ensemble averages.
        origin: Where missing files are fetched from; None if all files are local.
    """

    id: str
    folder: Path
    config: Config
    evaluation: Evaluation
    weights: Weights | None
    reason: str | None = None
    members: tuple[Entry, ...] = ()
    origin: Origin | None = None

    def file(self, name: str) -> Path:
        """Path of one of the entry's files, whether it exists or not; a Hub entry's file is fetched first.

        Args:
            name: Path relative to the entry's folder.

        Raises:
            EntryError: The file cannot be fetched.
        """
        if self.origin is not None:
            self.origin.fetch(name)
        return self.folder / name

    @property
    def usable(self) -> bool:
        """Whether the entry can classify: its weights (for an ensemble, those of its members) are available."""
        return self.weights is not None

    @property
    def is_detector(self) -> bool:
        """Whether the entry finds cells instead of classifying them."""
        return self.config.zoo.detector is not None

    @property
    def merged_labels(self) -> dict[str, str]:
        """Label of a member → label of the entry that it counts as, where the names differ."""
        return self.config.zoo.merged_labels or {}

    def map_probabilities(self, probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Map a member's probabilities to the entry's own labels.

        Args:
            probabilities: Array (n, len(labels)).
            labels: The member's labels, in the order of the columns.

        Returns:
            Array (n, number of the entry's labels); each row adds up to 1.
        """
        return label_mapping.map_probabilities(probabilities, labels, self.labels, self.merged_labels)

    def member_class(self, label: str, member: Entry) -> int:
        """Index of a member's class that stands for one of the entry's labels.

        This is the class of the same name; else the first one that counts as the label.
        """
        if label in member.labels:
            return member.labels.index(label)
        return next(index for index, name in enumerate(member.labels) if self.merged_labels.get(name) == label)

    @property
    def member_weights(self) -> list[float]:
        """Weight of each member in an ensemble's mean; they add up to 1."""
        return self.config.zoo.member_weights or [1 / max(len(self.members), 1)] * len(self.members)

    @property
    def weighted_members(self) -> list[tuple[Entry, float]]:
        """An ensemble's members with a weight above 0, with that weight; the others need not be run."""
        return [
            (member, weight) for member, weight in zip(self.members, self.member_weights, strict=True) if weight > 0
        ]

    @property
    def networks(self) -> list[Entry]:
        """The single models that are run: the entry itself, or an ensemble's members with a weight above 0."""
        return [member for member, _ in self.weighted_members] or [self]

    @property
    def other_laboratories(self) -> OtherLaboratories | None:
        """Expected performance in unseen laboratories; of an ensemble of one member, that member's."""
        only = self.members[0].other_laboratories if len(self.members) == 1 else None
        return self.evaluation.other_laboratories or only

    @property
    def deciding_member(self) -> int | None:
        """Number, among `weighted_members`, of the member whose probabilities decide on acceptance; None: the mean."""
        names = [member.id for member, _ in self.weighted_members]
        chosen = self.config.zoo.deciding_member
        return names.index(chosen) if chosen in names else None

    @property
    def acceptance(self) -> AcceptanceQuality | None:
        """Limits of acceptance, where they were chosen; of an ensemble of one member, that member's."""
        only = self.members[0].acceptance if len(self.members) == 1 else None
        return self.evaluation.acceptance or only

    @property
    def unseen_temperature(self) -> float | None:
        """Temperature that confidence needs in unseen laboratories; None where it was not measured."""
        measured = self.acceptance or self.other_laboratories
        return measured.temperature if measured else None

    @property
    def count_error(self) -> float | None:
        """Standard deviation of a counted share's error that is the classifier's; None where it was not measured."""
        return self.evaluation.counts.error if self.evaluation.counts else None

    @cached_property
    def trained_prior(self) -> TrainedPrior:
        """Share of each label that the network was trained with."""
        shares = self.config.zoo.trained_shares
        if shares is not None:
            total = sum(shares.values())
            return TrainedPrior(np.array([shares[label] / total for label in self.labels]), "stored")
        if self.members:
            parts = [(member.trained_prior, member, weight) for member, weight in self.weighted_members]
            mapped = [self.map_probabilities(one.shares[None], member.labels)[0] for one, member, _ in parts]
            mean = np.average(mapped, axis=0, weights=[weight for _, _, weight in parts])
            known = all(one.origin != "assumed" for one, _, _ in parts)
            return TrainedPrior(mean, "members" if known else "assumed")
        balance = self.recipe.get("balance")
        is_balanced = isinstance(balance, dict) and (
            bool(balance.get("class_weights")) or balance.get("resample", "none") != "none"
        )
        uniform = np.full(len(self.labels), 1 / len(self.labels))
        return TrainedPrior(uniform, "recipe" if is_balanced else "assumed")

    @cached_property
    def default_sample(self) -> Sample:
        """Sample that the entry is asked with unless its user says otherwise.

        This is the one that its config names; else peripheral blood for entries that know other kinds of cells beside
        white ones of blood, and "alike" for all others.
        """
        own = self.config.zoo.sample
        if own is not None:
            return Sample(own.name, weights=own.weights, other=own.other)
        known, white = set(self.labels), set(reference_shares(BLOOD))
        further = set(samples()[BLOOD].weights) - white
        return samples()[BLOOD if known & further and len(known & white) > 1 else ALIKE]

    def prior_of(self, sample: Sample) -> np.ndarray:
        """Share of each of the entry's labels in a sample, (K,). Raises SampleError if there is none."""
        return sample.prior(self.labels, self.trained_prior.shares)

    def apply_sample(self, probabilities: np.ndarray, sample: Sample) -> np.ndarray:
        """The network's probabilities (n, classes) in a sample. Raises SampleError if it rules out every label."""
        return sample.apply(probabilities, self.labels, self.trained_prior.shares)

    @property
    def title(self) -> str:
        """The model's name for people."""
        return self.config.zoo.title

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the network's outputs."""
        return self.config.label_names

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the model was trained with, as stored in its config; empty where it stores none."""
        recipe = (self.config.zoo.model_extra or {}).get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    @property
    def views(self) -> int:
        """Number of rotated and mirrored views of a picture whose answers are averaged."""
        return self.config.zoo.views

    def with_views(self, count: Literal[1, 2, 4, 8]) -> Entry:
        """The entry with another number of views; in an ensemble, of each member."""
        changed = self.config.model_copy(update={"zoo": self.config.zoo.model_copy(update={"views": count})})
        return replace(self, config=changed, members=tuple(member.with_views(count) for member in self.members))

    @property
    def system(self) -> str:
        """Letter of the published system that the model reproduces; empty for all others."""
        letter = self.recipe.get("system", "")
        return letter if isinstance(letter, str) else ""

    @property
    def data_set(self) -> str:
        """Name of the data set that the model was trained on; empty where it is not stated."""
        data = self.recipe.get("data")
        name = data.get("name", "") if isinstance(data, dict) else ""
        return name if isinstance(name, str) else ""

    @property
    def mixed_data_sets(self) -> tuple[str, ...]:
        """The data sets that were joined for training; empty where it was one."""
        data = self.recipe.get("data")
        mix = data.get("mix") if isinstance(data, dict) else None
        return tuple(map(str, mix)) if isinstance(mix, dict) else ()

    @property
    def data_sets(self) -> tuple[str, ...]:
        """All data sets that the model was trained on."""
        return self.mixed_data_sets or (self.data_set,)

    @cached_property
    def class_names(self) -> dict[str, str]:
        """Classes written out by label, without details: "immature granulocyte" for "ig".

        A class keeps its label where another one would have the same name.
        """
        descriptions = self.config.label_descriptions
        names = {label: re.split(r"[(,;:]", descriptions.get(label, label))[0].strip() for label in self.labels}
        count = Counter(names.values())
        return {label: name if name and count[name] == 1 else label for label, name in names.items()}

    def describe(self, label: str) -> str:
        """The label, with its description where the entry has one."""
        text = self.config.label_descriptions.get(label)
        return f"{label}: {text}" if text else label


AnyEntry = Entry | BrokenEntry


def readable_entries(entries: Iterable[AnyEntry]) -> list[Entry]:
    """The entries that could be read, in the same order."""
    return [entry for entry in entries if isinstance(entry, Entry)]


def usable_entries(entries: Iterable[AnyEntry]) -> list[Entry]:
    """The entries that can classify, in the same order."""
    return [entry for entry in readable_entries(entries) if entry.usable]
