"""Shows events to a person, on standard error: bars with rate and estimate, tables, warnings.

On a terminal the bars move; elsewhere (a log, a pipe) there are plain lines, at most one in ten
seconds of each piece of work.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from mainspring import events, streams
from mainspring.text import duration

EVERY = 10.0  # seconds between two plain lines of the same work
BRIEF = 1.0  # seconds; work that is done sooner gets no plain line at all


class Rate(TextColumn):
    """How many units a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s", "dim")


class TerminalListener:
    """Draws events on a `rich` console. Bars live from their first event to `close()`."""

    def __init__(self, console: Console):
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[details]}", style="cyan"),
            console=console,
            refresh_per_second=4,
            # Results that go to a file or a pipe must not be caught and drawn on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.bars: dict[str, TaskID] = {}

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Note(text):
                self.console.print(text, highlight=False, markup=False)
            case events.Warn(text):
                self.console.print(Text("! ", "yellow") + Text(text))
            case events.Block(title, lines):
                self.block(title, lines)
            case events.Progress():
                self.bar(event)

    def block(self, title: str, lines: tuple[tuple[str, str], ...]) -> None:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in lines:
            table.add_row(Text(name), Text(value))
        self.console.print(Text(title, "bold underline"))
        self.console.print(table)

    def bar(self, event: events.Progress) -> None:
        details = "  ".join(f"{name} {value}" for name, value in event.details.items())
        if event.task not in self.bars:
            self.progress.start()
            self.bars[event.task] = self.progress.add_task(
                event.task, total=event.total, unit=event.unit, details=details
            )
        bar = self.bars[event.task]
        self.progress.update(bar, completed=event.done, total=event.total, details=details)
        if event.over:
            del self.bars[event.task]
            self.progress.refresh()
            if not self.bars:
                self.stop()

    def stop(self) -> None:
        """Leaves finished bars on the screen and makes room for new ones."""
        self.progress.stop()
        for task in self.progress.tasks:
            self.progress.remove_task(task.id)

    def close(self) -> None:
        self.bars.clear()
        self.stop()


@dataclass
class Work:
    """What plain lines remember of a piece of work: when it began, with how many units done, and
    when it was last shown."""

    began: float
    first: int
    shown: float


class PlainListener:
    """Writes events as lines of plain text, none of them wrapped or rewritten."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream, clock
        self.works: dict[str, Work] = {}

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Note(text):
                self.write(text)
            case events.Warn(text):
                self.write(f"! {text}")
            case events.Block(title, lines):
                width = max((len(name) for name, _ in lines), default=0)
                self.write(title, *(f"  {name:<{width}}  {value}" for name, value in lines))
            case events.Progress():
                self.progress(event)

    def write(self, *lines: str) -> None:
        self.stream.writelines(line + "\n" for line in lines)
        self.stream.flush()

    def progress(self, event: events.Progress) -> None:
        now = self.clock()
        work = self.works.setdefault(event.task, Work(now, event.done, now))
        if event.over:
            del self.works[event.task]
        if now - work.shown >= EVERY or (event.over and now - work.began >= BRIEF):
            work.shown = now
            self.write(progress_line(event, event.done - work.first, now - work.began))

    def close(self) -> None:
        self.works.clear()


def progress_line(event: events.Progress, done: int, seconds: float) -> str:
    """ "training 120/3000 steps · loss 3.21 · 1,234 tokens/s · 3.2 steps/s · 4 min left", where
    `done` units took `seconds`."""
    total = "" if event.total is None else f"/{event.total}"
    parts = [f"{event.task} {event.done}{total} {event.unit}"]
    for name, value in event.details.items():
        parts.append(f"{value} {name}" if "/" in name else f"{name} {value}")
    if done and seconds:
        parts.append(f"{done / seconds:,.1f} {event.unit}/s")
        if event.total is not None and not event.over:
            parts.append(f"{duration((event.total - event.done) * seconds / done)} left")
    if event.over:
        parts.append(duration(seconds))
    return " · ".join(parts)


Listener = TerminalListener | PlainListener


def listener() -> Listener:
    """What suits standard error: moving bars on a terminal or in a notebook, plain lines else."""
    console = Console(stderr=True)
    drawable = sys.stderr.isatty() and not console.is_dumb_terminal
    if drawable or console.is_jupyter:
        return TerminalListener(console)
    return PlainListener(sys.stderr)


@contextmanager
def show_progress() -> Iterator[None]:
    """Within the block Mainspring's functions show progress, warnings and results.

    with mainspring.show_progress():
        mainspring.fit("summarize", "news.csv", model="google-t5/t5-small", out="runs/news")
    """
    shown = listener()
    with events.listening(shown):
        try:
            yield
        finally:
            shown.close()


@contextmanager
def printing(as_json: bool, quiet: bool) -> Iterator[None]:
    """What the command line does with events: answers to standard output as they are made, the
    rest to standard error, or with `quiet` warnings only."""
    shown = listener()
    begun = False  # whether an answer stands on standard output without its line end

    def listen(event: events.Event) -> None:
        nonlocal begun
        match event:
            case events.Text(text):
                if not as_json:
                    streams.put(text, end="")
                    begun = True
            case events.Answer(written=True):
                pass
            case events.Answer(row, text):
                line = json.dumps(row, ensure_ascii=False, default=str) if as_json else text
                streams.put("" if begun else line)
                begun = False
            case events.Warn():
                shown(event)
            case _ if not quiet:
                shown(event)

    with events.listening(listen):
        try:
            yield
        finally:
            shown.close()
