"""The errors Mainspring raises on purpose. Each says what was wrong, where, and what to do.

    MainspringError
    ├── BadOption     an option, task, column or config key that is unknown or out of range
    ├── BadData       the user's data: a file, a line, a field
    ├── BadWeights    a checkpoint whose tensors or files cannot be what they claim to be
    ├── Mismatch      two good things that do not fit together (a task and a model, say)
    ├── Missing       something that was looked for and is not there
    │   └── NotFetched   a model that `mainspring get` brings
    ├── Refused       something Mainspring will not do (pickle, remote code), and what to do instead
    └── Diverged      training produced NaN, infinity or an exploding loss

Everything but `Diverged` is about the user's input and ends the command line with exit code 2.
Standard library only.
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path


class MainspringError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown to the user as it is."""

    exit_code = 2


class BadOption(MainspringError):
    """An unknown or out-of-range option, task, column or config key."""

    @classmethod
    def unknown(cls, what: str, name: str, known: Iterable[str]) -> "BadOption":
        """An error that names the nearest of the `known` names."""
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
        return cls(f"unknown {what} `{name}`; {hint}")


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be: from `least` to `most`, either included, or `above` one.

    Infinity is among them only where it is `most` by name, nan never.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def check(self, flag: str, value: float) -> None:
        """BadOption where `value`, given by the option `flag`, is none of them."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise BadOption(f"{flag} must be a number, not {value!r}")
        if self.above is not None:
            if not self.above < value < math.inf:
                raise BadOption(f"{flag} must be above {self.above}, not {value}")
        elif self.least is not None and self.most is not None:
            if not self.least <= value <= self.most:
                raise BadOption(
                    f"{flag} must lie between {self.least} and {self.most}, not be {value}"
                )
        elif self.least is not None and not self.least <= value < math.inf:
            raise BadOption(f"{flag} must be at least {self.least}, not {value}")
        elif not math.isfinite(value):
            raise BadOption(f"{flag} must be a number, not {value}")


class BadData(MainspringError):
    """A fault in the user's data, with its place."""

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ):
        place = ":".join(str(part) for part in (file, line) if part is not None)
        place += f" (field `{field}`)" if field else ""
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem, self.file, self.line, self.field = problem, file, line, field


class BadWeights(MainspringError):
    """A checkpoint whose tensors or files are corrupt, missing, left over or of a wrong shape."""


class Mismatch(MainspringError):
    """Two good things that do not fit together."""


class Missing(MainspringError):
    """Something that was looked for and is not there."""


class NotFetched(Missing):
    """A model that `mainspring get` brings, and that is not on this machine yet."""

    def __init__(self, name: str, title: str, terms: str):
        self.name = name
        self.told = f"`{name}` ({title}) is not on this machine yet; fetch it"
        self.terms = terms
        super().__init__(f"{self.told} once, {terms}:\n  mainspring get {name}")


class Refused(MainspringError):
    """Something that is not done on principle; the message says what to do instead."""


class Diverged(MainspringError):
    """Training produced a NaN, an infinity or an exploding loss."""

    exit_code = 3
