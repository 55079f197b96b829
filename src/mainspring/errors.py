"""The errors Mainspring raises on purpose. Each says what was wrong, where, and what to do.

    MainspringError
    ├── BadOption     an option, task, column or config key that is unknown or out of range
    ├── BadData       the user's data: a file, a line, a field
    ├── BadWeights    a checkpoint whose tensors or files cannot be what they claim to be
    ├── Mismatch      two good things that do not fit together (a task and a model, say)
    ├── Missing       something that was looked for and is not there
    ├── Refused       something Mainspring will not do (pickle, remote code), and what to do instead
    └── Diverged      training produced NaN, infinity or an exploding loss

Everything but `Diverged` is about the user's input and ends the command line with exit code 2.
Standard library only.
"""

import difflib
from collections.abc import Iterable
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
        self.file, self.line, self.field = file, line, field


class BadWeights(MainspringError):
    """A checkpoint whose tensors or files are corrupt, missing, left over or of a wrong shape."""


class Mismatch(MainspringError):
    """Two good things that do not fit together."""


class Missing(MainspringError):
    """Something that was looked for and is not there."""


class Refused(MainspringError):
    """Something that is not done on principle; the message says what to do instead."""


class Diverged(MainspringError):
    """Training produced a NaN, an infinity or an exploding loss."""

    exit_code = 3
