"""The verbs: one thin file each, a Python function that is also a command.

A verb's parameters are its options, its docstring their help. It returns a `Result`: data for
Python, lines for the command line.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, SupportsIndex, get_args, get_origin, get_type_hints

from mainspring.errors import BadOption


class Result(Protocol):
    """What the command line asks of what a verb returns."""

    exit_code: int

    def lines(self, as_json: bool) -> Iterator[str]:
        """What goes to standard output: text for people, or JSON objects."""


def check_values(verb: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """BadOption where an option's value is none of those its annotation lists, or not whole where
    it counts something. The command line checks that itself; a call from Python comes unchecked."""
    for name, kind in get_type_hints(verb).items():
        value, kinds = options.get(name), (kind, *get_args(kind))
        if value is None:
            continue
        literals = [part for part in kinds if get_origin(part) is Literal]
        choices = [choice for literal in literals for choice in get_args(literal)]
        flag = f"--{name.replace('_', '-')}"
        if choices and value not in choices:
            raise BadOption.unknown(flag, str(value), choices)
        if int in kinds and not isinstance(value, SupportsIndex):
            raise BadOption(f"{flag} must be a whole number, not {value!r}")
