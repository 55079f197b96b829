import io
import json
import os
import pty
import subprocess
import sys

import pytest

from mainspring import events
from mainspring.console import PlainListener, TerminalListener, listener, printing, show_progress
from mainspring.events import Block, Note, Progress, Warn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> PlainListener:
    return PlainListener(io.StringIO(), clock)


def text_of(log: PlainListener) -> str:
    assert isinstance(log.stream, io.StringIO)
    return log.stream.getvalue()


def test_a_log_gets_a_line_every_ten_seconds(log: PlainListener, clock: Clock) -> None:
    for step in range(301):
        clock.now = 100 + step / 3
        details = {"loss": "3.21", "tokens/s": "1,234"}
        log(Progress("training", step, 3000, "steps", details))
    lines = text_of(log).splitlines()
    assert len(lines) == 10
    assert lines[3] == (
        "training 120/3000 steps · loss 3.21 · 1,234 tokens/s · 3.0 steps/s · 16 min 00 s left"
    )


def test_the_end_of_long_work_is_a_line_and_short_work_is_none(
    log: PlainListener, clock: Clock
) -> None:
    for seconds in (0.4, 4.0):
        log(Progress("reading", 1, None))
        clock.now += seconds
        log(Progress("reading", 9, 9))
    assert text_of(log) == "reading 9/9 rows · 2.0 rows/s · 4 s\n"


def test_work_that_is_stopped_says_how_far_it_came(log: PlainListener, clock: Clock) -> None:
    log(Progress("training", 0, 2000, "steps"))
    clock.now += 8
    log(Progress("training", 24, 2000, "steps", {"ended": "SIGINT"}, stopped=True))
    assert text_of(log) == "training 24/2000 steps · ended SIGINT · 3.0 steps/s · 8 s\n"


def test_work_of_unknown_length_and_work_that_was_resumed(log: PlainListener, clock: Clock) -> None:
    log(Progress("reading", 0, None))
    log(Progress("training", 500, 1000, "steps"))
    clock.now += 10
    log(Progress("reading", 40_000, None))
    log(Progress("training", 600, 1000, "steps"))
    assert text_of(log).splitlines() == [
        "reading 40000 rows · 4,000.0 rows/s",
        "training 600/1000 steps · 10.0 steps/s · 40 s left",
    ]


def test_nothing_is_wrapped_or_coloured(log: PlainListener) -> None:
    long = "word " * 60
    log(Block("Pre-flight", (("task", "summarize"), ("loss on", long))))
    log(Note(long))
    log(Warn("[bold]lost[/bold]"))
    assert text_of(log) == (
        f"Pre-flight\n  task     summarize\n  loss on  {long}\n{long}\n! [bold]lost[/bold]\n"
    )


def test_where_standard_error_is_no_terminal_lines_are_plain() -> None:
    assert isinstance(listener(), PlainListener)


def test_show_progress_listens_within_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress():
        events.note("now")
    events.note("later")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "now\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_answers_go_to_standard_output_and_all_else_does_not(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with printing(as_json, quiet=False):
        events.note("a note")
        events.emit(events.Answer({"summary": "Ein Tor."}, "Ein Tor."))
    captured = capsys.readouterr()
    assert captured.out == (json.dumps({"summary": "Ein Tor."}) if as_json else "Ein Tor.") + "\n"
    assert captured.err == "a note\n"


def test_quiet_leaves_warnings_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with printing(as_json=False, quiet=True):
        events.note("a note")
        events.warn("a loss")
        events.emit(events.Answer({}, "text"))
        events.emit(Progress("work", 1, 2))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("text\n", "! a loss\n")


ON_A_TERMINAL = """
from mainspring import events
from mainspring.console import TerminalListener, listener, printing
assert isinstance(listener(), TerminalListener)
with printing(as_json=True, quiet=False):
    events.note("a note")
    events.emit(events.Block("Title", (("name", "[value]"),)))
    for done in range(1, 4):
        events.emit(events.Progress("work", done, 3, "steps", {"loss": "1.5"}))
        events.emit(events.Answer({"n": done}, "text"))
    events.emit(events.Progress("more", 1, None))
"""


def test_on_a_terminal_bars_move_and_results_still_go_where_they_are_sent() -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ON_A_TERMINAL],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            check=True,
            timeout=120,
        )
        drawn = os.read(ours, 1 << 20).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [1, 2, 3]
    for part in ("a note", "Title", "[value]", "work", "3/3", "loss 1.5", "more", "\x1b["):
        assert part in drawn


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(listener(), PlainListener)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(listener(), TerminalListener)
