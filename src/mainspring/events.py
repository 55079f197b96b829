"""How the library speaks without printing: it emits events, and whoever listens shows them.

Verbs emit; the command line (or `mainspring.show_progress()` in a notebook) listens. With no
listener events are dropped: a library call is silent by default. Standard library only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Note:
    """One line for a person."""

    text: str


@dataclass(frozen=True)
class Warn:
    """One line for a person about something that was lost, ignored or unusual."""

    text: str


@dataclass(frozen=True)
class Block:
    """A titled list of (name, value) lines: a pre-flight, a result."""

    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Progress:
    """Where a long piece of work stands. `total` is None where it is not known.

    `task` names the bar; equal names are one bar. `done == total` ends it, or `stopped` before
    that. `details` are shown beside the bar as they are ("loss": "2.31").
    """

    task: str
    done: int
    total: int | None
    unit: str = "rows"
    details: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    @property
    def over(self) -> bool:
        return self.stopped or self.done == self.total


@dataclass(frozen=True)
class Answer:
    """One prediction, as soon as it is made: its whole row, and the text a person wants to see.
    `written` says that it went to a file, and need not be shown."""

    row: dict[str, Any]
    text: str
    written: bool = False


@dataclass(frozen=True)
class Text:
    """The next piece of an answer that is being written; its `Answer` follows when it is whole."""

    text: str


Event = Note | Warn | Block | Progress | Answer | Text
Listener = Callable[[Event], Any]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def emit(event: Event) -> None:
    """Gives `event` to the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(event)


def note(text: str) -> None:
    emit(Note(text))


def warn(text: str) -> None:
    emit(Warn(text))


def counter(task: str, total: int | None, unit: str = "rows") -> Callable[[int], None]:
    """A function that shows how many units are done. Who counts says by a `Progress` that it was
    the last, since `total` may be an estimate."""

    def show(done: int) -> None:
        if total is None or done < total:
            emit(Progress(task, done, total, unit))

    return show


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block events go to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
