"""The standard streams, also where they are closed, full, or of an old encoding. Standard library
only."""

import io
import os
import sys


def prepare(as_json: bool) -> None:
    """What the output's encoding has no sign for is written as an escape; JSON is always UTF-8. A
    stream that is closed takes what is written and loses it."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if as_json and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def put(text: str, end: str = "\n") -> None:
    """Writes to standard output at once. OSError names it, and nothing more goes there."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, error.strerror, "standard output") from None


def drop_output() -> None:
    """Standard output leads nowhere from now on: what could not be written would else be tried
    once more when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Held(io.StringIO):
    """Text for standard output, as it takes it, that is put there later."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return sys.stdout.encoding

    def isatty(self) -> bool:
        return sys.stdout.isatty()


def is_typed() -> bool:
    """Whether standard input is a person at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()
