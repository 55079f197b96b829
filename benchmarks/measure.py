"""Statistics of repeated measurements, and in which order contestants take their turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles


@dataclass(frozen=True)
class Spread:
    """The median of some values and their quartiles: half of the values lie in `low`..`high`."""

    median: float
    low: float
    high: float
    count: int

    def shown(self, form: str = ".2f") -> str:
        if self.count == 1:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({self.low:{form}}–{self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """The `Spread` of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high, len(values))


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """over / under, round by round: values of one round were measured side by side, so that a
    machine that is slow for a while is slow for both."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def turn_order(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: there and back again, so that a drift of the machine cancels out."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def peak_bytes() -> int:
    """The most memory this process has held (resident), in bytes.

    From Linux's own count, which begins anew with each program: that of `getrusage` can come from
    the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
