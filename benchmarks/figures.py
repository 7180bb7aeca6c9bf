"""A figure: a measurement, its comparison, and its target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` has to meet the target, ``mark``; it is computed from the medians ``ours`` and ``bare``."""

    name: str
    ours: float
    bare: float | None
    unit: str
    """Of ``ours`` and ``bare``."""
    value: float
    value_unit: str
    mark: float
    at_least: bool
    samples: int

    @property
    def met(self) -> bool:
        """Whether the value meets the target."""
        return self.value >= self.mark if self.at_least else self.value <= self.mark

    def to_json(self) -> dict[str, Any]:
        """Return the figure for the JSON report."""
        return {
            "name": self.name,
            "ours": self.ours,
            "bare": self.bare,
            "unit": self.unit,
            "value": self.value,
            "value_unit": self.value_unit,
            "mark": f"{'>=' if self.at_least else '<='} {self.mark:g}",
            "met": self.met,
            "samples": self.samples,
        }


def ratio(
    name: str,
    ours: Sequence[float],
    bare: Sequence[float],
    *,
    unit: str,
    mark: float,
    at_least: bool = False,
) -> Figure:
    """Return our median as a multiple of the bare one."""
    a, b = median(ours), median(bare)
    return Figure(name, a, b, unit, a / b, "x", mark, at_least, len(ours))


def alone(name: str, ours: Sequence[float], *, unit: str, mark: float, at_least: bool = False) -> Figure:
    """Return our median, for a measurement without a comparison."""
    value = median(ours)
    return Figure(name, value, None, unit, value, unit, mark, at_least, len(ours))


def interleaved(
    rounds: int, ours: Callable[[], float], bare: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Return the results of calling both in turn, after one call of each to warm up.

    In turn, because a shared machine is slower for minutes at a time, which then affects both.
    """
    ours()
    bare()
    pairs = [(ours(), bare()) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    started = perf_counter()
    call()
    return perf_counter() - started
