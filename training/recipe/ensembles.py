"""Schema of the [ensemble] of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zoo.scores.averages import Mean

WEIGHTS_SUM = 1e-3  # by which the weights of an ensemble may differ from 1


class Ensemble(BaseModel):
    """[ensemble]: entries whose probabilities are averaged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: list[str] = Field(min_length=1, description="Ids of entries of the zoo")
    same: dict[str, str] | None = Field(
        None,
        description="Label of a member → label of this recipe that it counts as; other labels of members are dropped",
    )
    weights: Literal["equal", "fitted"] | list[Annotated[float, Field(ge=0, le=1)]] = Field(
        "fitted", description="fitted: least log loss of the arithmetic mean on validation; or a number a member"
    )
    mean: Mean = Field("arithmetic", description="How probabilities are averaged")
    deciding: str = Field(
        "", description="Member whose probability of the answer decides on acceptance; empty: the mean"
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Ensemble:
        if not isinstance(self.weights, str):
            if len(self.weights) != len(self.members):
                raise ValueError("weights are not as many as members")
            if abs(sum(self.weights) - 1) > WEIGHTS_SUM:
                raise ValueError("weights do not add up to 1")
        elif self.weights == "fitted" and self.mean != "arithmetic":
            raise ValueError("weights are fitted for the arithmetic mean only: name equal ones, or numbers")
        if self.deciding and self.deciding not in self.members:
            raise ValueError(f"deciding is {self.deciding!r}, which is none of the members: {', '.join(self.members)}")
        return self
