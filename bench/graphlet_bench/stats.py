"""The few statistics that the bench quotes, and what they are over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Spread:
    """Medians of several processes: their median, and the least and greatest of them."""

    median: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three as they are written to the results."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def spread(values: Sequence[float]) -> Spread:
    """The spread of a sequence that is not empty."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """How many times as long the others take, from rounds that ran beside each other.

    A ratio is taken in each round and the median over rounds: what slowed the machine for a while
    slowed both. ``None`` when no round has both.
    """
    each = [b / a for a, b in zip(ours, theirs, strict=False) if a > 0 and b > 0]
    return spread(each) if each else None


def softmax(values: Sequence[float]) -> list[float]:
    """Probabilities of logits."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def is_probabilities(values: Sequence[float]) -> bool:
    """Whether a softmax has been over these already."""
    return min(values) >= 0 and abs(sum(values) - 1) < 1e-3


@dataclass(frozen=True)
class Comparison:
    """An output beside the reference's."""

    max_difference: float
    same_label: bool

    @property
    def right(self) -> bool:
        """Whether a reader may take the time of this output for the time of the work.

        Probabilities differ by rounding alone; 1e-3 is a tenth of a per cent.
        """
        return self.same_label and self.max_difference <= 1e-3


def compare(output: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Two outputs as probabilities; an output of another length is wrong altogether."""
    if len(output) != len(reference) or any(not math.isfinite(value) for value in output):
        return Comparison(1.0, same_label=False)
    both = [v if is_probabilities(v) else softmax(v) for v in (list(output), list(reference))]
    difference = max(abs(a - b) for a, b in zip(*both, strict=True))
    return Comparison(difference, both[0].index(max(both[0])) == both[1].index(max(both[1])))
