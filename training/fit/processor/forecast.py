"""Estimate of the time that a training and its scoring take, from the time of a step and what was done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.recipe import Recipe, Stage

# work in units of one picture through a training step at the network's input size
FORWARD = 0.35  # of a picture without gradients
KEPT_FEATURE = 0.005  # of a kept feature through a head
SURE_SHARE = 0.03  # of the work, from which on the measured speed is trusted alone


@dataclass(frozen=True)
class Forecast:
    """Work of a training, epoch by epoch, and the seconds that are left.

    Attributes:
        epochs: Work of each epoch of all stages; the first of a stage on kept features includes their computation.
        seconds_a_picture: Of a training step, where it was measured; None: unknown.
        afterwards: Work after the last epoch: further runs of the same recipe, and scoring.
    """

    epochs: list[float]
    seconds_a_picture: float | None = None
    afterwards: float = 0.0

    @classmethod
    def of(
        cls, recipe: Recipe, pictures: Mapping[str, int], seconds_a_picture: float | None = None, runs_after: int = 0
    ) -> Forecast:
        """The forecast of a recipe's training.

        Args:
            recipe: What is trained.
            pictures: Number of pictures of each side of the split.
            seconds_a_picture: Of a training step, where it was measured.
            runs_after: Number of further runs, each like this one.
        """
        trained, validated = pictures["train"], pictures["val"]
        epochs = [work for stage in recipe.all_stages for work in _stage_work(recipe, stage, trained, validated)]
        # the temperature is fitted on validation pictures, which are then scored as the test pictures are
        scored = (2 * validated + pictures.get("test", 0)) * FORWARD * recipe.network.views
        return cls(epochs, seconds_a_picture, runs_after * sum(epochs) + scored)

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole training, None where no speed is known."""
        if self.seconds_a_picture is None:
            return None
        return (sum(self.epochs) + self.afterwards) * self.seconds_a_picture

    def left(self, epoch: int, share: float, seconds: float) -> float | None:
        """Estimate the seconds that are left.

        Args:
            epoch: Number of the running epoch, from 0.
            share: Share of it that is done, 0..1.
            seconds: Time that was spent so far.

        Returns:
            None while nothing is known.
        """
        whole = sum(self.epochs)
        done = sum(self.epochs[:epoch]) + share * sum(self.epochs[epoch : epoch + 1])
        measured = seconds / done if done else None
        expected = self.seconds_a_picture
        trust = min(1.0, done / (SURE_SHARE * whole)) if whole else 1.0
        if measured is None or expected is None:
            rate = measured if expected is None else expected
        else:
            rate = trust * measured + (1 - trust) * expected
        return None if rate is None else rate * (whole - done + self.afterwards)


def _stage_work(recipe: Recipe, stage: Stage, trained: int, validated: int) -> list[float]:
    size = stage.input_size or recipe.network.input_size
    full = recipe.network.input_size
    area = size[0] * size[1] / (full[0] * full[1])
    mixed = bool(recipe.augment.mixup or recipe.augment.cutmix)
    if stage.train == "head" and recipe.schedule.cache_features and not mixed:
        views = recipe.schedule.views if recipe.augment.changes_pictures else 1
        epoch = KEPT_FEATURE * (trained + validated)
        return [epoch + area * FORWARD * (views * trained + validated), *[epoch] * (stage.epochs - 1)]
    step = 1.0 if stage.train == "all" else (1 + FORWARD) / 2
    return [area * (step * trained + FORWARD * validated)] * stage.epochs
