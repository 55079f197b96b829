"""The verbs: one thin file each, a Python function that is also a command.

A verb's parameters are its options, its docstring their help. It returns a `Result`: data for
Python, lines for the command line.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

from mainspring.errors import BadOption


class Result(Protocol):
    """What the command line asks of what a verb returns."""

    exit_code: int

    def lines(self, as_json: bool) -> Iterator[str]:
        """What goes to standard output: text for people, or JSON objects."""


def check_choices(verb: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """BadOption where an option's value is none of those its annotation lists. The command line
    checks that itself; a call from Python comes unchecked."""
    for name, kind in get_type_hints(verb).items():
        literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
        choices = [choice for literal in literals for choice in get_args(literal)]
        if choices and options[name] is not None and options[name] not in choices:
            raise BadOption.unknown(f"--{name.replace('_', '-')}", str(options[name]), choices)
