"""The verbs: one thin file each, a Python function that is also a command.

A verb's parameters are its options, its docstring their help. It returns a `Result`: data for
Python, lines for the command line.
"""

from collections.abc import Iterator
from typing import Protocol


class Result(Protocol):
    """What the command line asks of what a verb returns."""

    exit_code: int

    def lines(self, as_json: bool) -> Iterator[str]:
        """What goes to standard output: text for people, or JSON objects."""
