"""The settings of the label: what is learned, which class counts, how much each row weighs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Settings


@dataclass(frozen=True)
class ThresholdRule:
    """How `label.threshold` is chosen."""

    metric: Literal["f1", "recall", "precision"]
    least: float = 0.0
    """Of recall or precision."""

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Return the rule that ``text`` says. Raises ValueError."""
        if text == "f1":
            return cls("f1")
        name, sign, number = (part.strip() for part in text.partition(">="))
        with suppress(ValueError):
            if sign and name in ("recall", "precision") and 0 < float(number) <= 1:
                return cls(name, float(number))  # type: ignore[arg-type]
        raise ValueError(f"'{text}' is not a probability, f1, recall>=0.8 or precision>=0.9")


class Label(Settings):
    """What the network learns to predict."""

    column: str
    """Name of the column in the result of features.sql."""
    task: Literal["classification", "regression"] = "classification"
    """Classes, or a number."""
    classes: list[str] | None = Field(default=None, min_length=2)
    """Class names: of an integer label the names of 0, 1, 2, …, of a string label its values; default: what the data
    hold."""
    positive: str | None = None
    """Of two classes the one that precision, recall, f1 and pr_auc are of; without it they are means over all classes,
    and there is no pr_auc."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | str = Field(default=0.5, union_mode="left_to_right")
    """The positive class is predicted from this probability on: a number, `f1` (where F1 is highest), `recall>=0.8`
    (the highest with this recall) or `precision>=0.9` (the lowest with it). If none has that precision, it is the most
    precise one. A rule is followed on the validation rows, and the model keeps the number."""
    weight: str | None = None
    """Column of features.sql with the weight of each row in the loss, at least 0; a row that lacks it is dropped."""

    @field_validator("threshold")
    @classmethod
    def _is_a_rule(cls, threshold: float | str) -> float | str:
        if isinstance(threshold, str):
            ThresholdRule.parse(threshold)
        return threshold

    @property
    def threshold_rule(self) -> ThresholdRule | None:
        """How the threshold is chosen on the validation rows; None if it is a number."""
        return ThresholdRule.parse(self.threshold) if isinstance(self.threshold, str) else None

    @model_validator(mode="after")
    def _positive_is_one_of_two_classes(self) -> Label:
        if self.positive is None:
            if self.threshold != 0.5:
                raise ValueError("threshold is a probability of label.positive: say which class that is")
            return self
        if self.task == "regression":
            raise ValueError("positive is for task: classification, but task is regression")
        if self.classes is not None and len(self.classes) != 2:
            raise ValueError(f"positive is for two classes, but classes lists {len(self.classes)}")
        if self.classes is not None and self.positive not in self.classes:
            raise ValueError(f"positive '{self.positive}' is not one of {', '.join(self.classes)}")
        return self

    @model_validator(mode="after")
    def _classes_need_classification(self) -> Label:
        if self.classes is not None and self.task == "regression":
            raise ValueError("classes is for task: classification, but task is regression")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self
