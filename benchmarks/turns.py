"""Contestants in processes of their own that take turns.

Each contestant is a child process that holds its model and waits; only the one whose turn it is
works. So they are measured side by side within seconds, and none feels another's memory settings,
thread pools or imports; and each one's peak of memory is its own.

    with playing(contestants) as team:
        for number in range(rounds):
            for name in turn_order(team.names, number):
                reply = team.ask(name, request)
    team.peaks[name]
"""

import importlib.util
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.measure import peak_bytes
from mainspring.threads import LATER

# Thread pools keep spinning for up to 0.2 s after their last work.
PAUSE = 0.25  # seconds


class ContestantFailed(Exception):
    """A contestant's process raised an error or died; the text says what it said."""


class Turns:
    """A contestant's end of the line: requests come in, replies go out."""

    def __init__(self, line: Connection):
        self.line = line

    def take(self) -> Any:
        """The next request; None when the game is over."""
        return self.line.recv()

    def __iter__(self) -> Iterator[Any]:
        while (request := self.take()) is not None:
            yield request

    def answer(self, reply: Any) -> None:
        self.line.send(("reply", reply))


@dataclass(frozen=True)
class Contestant:
    """`play(setup, turns)` runs in the child process: it loads what it needs, answers with a line
    that describes it, and then answers requests until there are no more.

    `play` is a module's function and `setup` can be pickled. `needs` are the packages without
    which it cannot play.
    """

    name: str
    play: Callable[[Any, Turns], None]
    setup: Any
    needs: tuple[str, ...] = ()


@dataclass
class Team:
    """Contestants that wait for their turns. `skipped` says why others could not play."""

    lines: dict[str, tuple[BaseProcess, Connection]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    last: str = ""

    @property
    def names(self) -> list[str]:
        return list(self.lines)

    def ask(self, name: str, request: Any) -> Any:
        """One turn: sends the request and waits for the reply."""
        if name != self.last:
            time.sleep(PAUSE)
            self.last = name
        self.lines[name][1].send(request)
        return self._reply(name)

    def start(self, contestant: Contestant) -> None:
        """Starts a contestant's process."""
        lacking = missing(contestant.needs)
        if lacking:
            self.skipped[contestant.name] = f"not installed: {', '.join(lacking)}"
            return
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_play, args=(contestant.play, contestant.setup, there), daemon=True
        )
        with waiting_as_they_like() if contestant.needs else nullcontext():
            process.start()
        there.close()
        self.lines[contestant.name] = (process, here)

    def wait(self, contestant: Contestant) -> None:
        """Waits until a contestant is ready. A peer that cannot start is left out; ours must."""
        try:
            self.descriptions[contestant.name] = str(self._reply(contestant.name))
        except ContestantFailed as problem:
            if not contestant.needs:
                raise
            self.lines.pop(contestant.name)
            last = str(problem).strip().splitlines()[-1]
            self.skipped[contestant.name] = f"could not start: {last}"

    def leave(self, name: str) -> None:
        """Ends a contestant's process and notes its peak of memory."""
        process, line = self.lines.pop(name)
        line.send(None)
        kind, peak = line.recv()
        if kind != "peak":
            raise ContestantFailed(f"{name}: ended in the middle of a turn: {peak}")
        self.peaks[name] = peak
        process.join()

    def _reply(self, name: str) -> Any:
        process, line = self.lines[name]
        try:
            kind, reply = line.recv()
        except EOFError:
            process.join()
            raise ContestantFailed(f"{name}: died (exit code {process.exitcode})") from None
        if kind != "reply":
            raise ContestantFailed(f"{name}: {reply}")
        return reply


@contextmanager
def playing(contestants: Sequence[Contestant]) -> Iterator[Team]:
    """All contestants that can play, started; on the way out their peaks of memory are noted."""
    team = Team()
    try:
        for contestant in contestants:
            team.start(contestant)
        for contestant in contestants:
            if contestant.name in team.lines:
                team.wait(contestant)
        yield team
        for name in team.names:
            team.leave(name)
    finally:
        for process, _ in team.lines.values():
            process.terminate()
            process.join()


@contextmanager
def waiting_as_they_like() -> Iterator[None]:
    """Leaves to peers how their threads wait, on a machine that is free: turning in circles for
    long, as they do by default, is fastest there. Elsewhere all wait politely."""
    ours = os.environ.get("GOMP_SPINCOUNT")
    if ours == str(LATER):
        del os.environ["GOMP_SPINCOUNT"]
    try:
        yield
    finally:
        if ours is not None:
            os.environ["GOMP_SPINCOUNT"] = ours


def missing(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def _play(play: Callable[[Any, Turns], None], setup: Any, line: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    try:
        play(setup, Turns(line))
    except EOFError:
        return  # the parent is gone
    except Exception:  # noqa: BLE001  (whatever a peer raises is reported by its name)
        line.send(("error", traceback.format_exc()))
    else:
        line.send(("peak", peak_bytes()))
