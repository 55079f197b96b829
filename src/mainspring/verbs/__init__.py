"""The verbs: one thin file each, a Python function that is also a command.

A verb's parameters are its options, its docstring their help. It returns a `Result`: data for
Python, lines for the command line.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    SupportsIndex,
    get_args,
    get_origin,
    get_type_hints,
)

from mainspring.errors import BadOption, Range

if TYPE_CHECKING:
    from mainspring.tasks import Task


class Result(Protocol):
    """What the command line asks of what a verb returns."""

    exit_code: int

    def lines(self, as_json: bool) -> Iterator[str]:
        """What goes to standard output: text for people, or JSON objects."""


def check_packages(task: "Task") -> None:
    """Missing where a task's scores need a package that is not installed."""
    if task.metric is not None and task.metric.needs is not None:
        task.metric.needs.check()


# The numbers that options may be, the same in every verb that has them.
RANGES = {
    **dict.fromkeys(("accumulate", "epochs", "evaluate_every", "limit", "lora", "steps"), Range(1)),
    **dict.fromkeys(("max_new_tokens", "num_beams"), Range(1)),
    **dict.fromkeys(("metric_rows", "patience", "min_new_tokens", "top_k"), Range(0)),
    "no_repeat_ngram_size": Range(0),
    **dict.fromkeys(("learning_rate", "lora_alpha", "minutes"), Range(above=0)),
    **dict.fromkeys(("temperature", "repetition_penalty"), Range(above=0)),
    **dict.fromkeys(("warmup", "weight_decay", "top_p", "min_p"), Range(0, 1)),
    "batch_tokens": Range(32),
    "clip": Range(0, math.inf),
    "length_penalty": Range(),
    "max_source": Range(4),
    "max_target": Range(2),
    "seed": Range(0, 2**63 - 1),  # what torch takes
    "vocabulary": Range(300),
}


def check_values(verb: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """BadOption where an option's value is none of those its annotation lists, out of its range,
    not whole where it counts something, or no path where it is one. The command line checks some of
    it itself; a call from Python comes unchecked."""
    for name, kind in get_type_hints(verb).items():
        value, kinds = options.get(name), (kind, *get_args(kind))
        if value is None:
            continue
        literals = [part for part in kinds if get_origin(part) is Literal]
        choices = [choice for literal in literals for choice in get_args(literal)]
        flag = f"--{name.replace('_', '-')}"
        if choices and value not in choices:
            raise BadOption.unknown(flag, str(value), choices)
        if Path in kinds and not isinstance(value, tuple) and not _is_of(value, kinds):
            what = "data" if name == "data" else flag
            raise BadOption(f"{what} must be a text or a path, not {type(value).__name__}")
        if int in kinds and not isinstance(value, SupportsIndex):
            raise BadOption(f"{flag} must be a whole number, not {value!r}")
        if name in RANGES:
            RANGES[name].check(flag, value)


def _is_of(value: Any, kinds: Sequence[Any]) -> bool:
    """Whether `value` is a path, or of one of the plain or generic types in `kinds`."""
    types = tuple(kind for one in kinds if isinstance(kind := get_origin(one) or one, type))
    return isinstance(value, (os.PathLike, *types))


def given_inputs(inputs: Sequence[Any]) -> tuple[str, ...]:
    """What a verb is to read: texts and paths, lists of them taken apart. BadOption for anything
    else, as from Python a number or a row may come."""
    found: list[str] = []
    for one in inputs:
        if isinstance(one, list | tuple):
            found += given_inputs(one)
        elif isinstance(one, str):
            found.append(one)
        elif isinstance(one, os.PathLike):
            path = Path(one)
            if not path.exists():
                from mainspring.data.sources import sources

                sources(path)  # raises Missing, with the nearest name
            found.append(str(path))
        else:
            raise BadOption(
                f"an input must be a text or a path, not {type(one).__name__}; rows of several "
                "columns come in a file (.jsonl, .csv)"
            )
    return tuple(found)
