"""Shows events to a person: bars with rate and estimate, tables, warnings. Writes to stderr."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

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

from mainspring import events


class Rate(TextColumn):
    """How many units a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s", "dim")


class ConsoleListener:
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
        )
        self.bars: dict[str, TaskID] = {}
        self.streaming = False

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
            case events.Stream(text):
                self.console.out(text, end="", highlight=False)

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
        if event.done == event.total:
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


@contextmanager
def show_progress() -> Iterator[None]:
    """Within the block Mainspring's functions show progress, warnings and results.

    with mainspring.show_progress():
        mainspring.fit("summarize", "news.csv", model="google-t5/t5-small", out="runs/news")
    """
    listener = ConsoleListener(Console(stderr=True))
    with events.listening(listener):
        try:
            yield
        finally:
            listener.close()


@contextmanager
def printing(as_json: bool, quiet: bool) -> Iterator[None]:
    """What the command line does with events: answers to standard output as they are made, the
    rest to standard error, or with `quiet` warnings only."""
    listener = ConsoleListener(Console(stderr=True))

    def listen(event: events.Event) -> None:
        match event:
            case events.Answer(row, text):
                line = json.dumps(row, ensure_ascii=False, default=str) if as_json else text
                print(line, flush=True)
            case events.Warn():
                listener(event)
            case _ if not quiet:
                listener(event)

    with events.listening(listen):
        try:
            yield
        finally:
            listener.close()
