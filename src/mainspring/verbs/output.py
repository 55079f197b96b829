"""Files of JSON rows that grow row by row: what `run` and `evaluate` write."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mainspring.errors import BadData

Write = Callable[[dict[str, Any]], None]


def told(counts: Mapping[str, int]) -> str:
    """What was counted, for a line: "3 tag repairs, 1 …"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def unwritable(file: Path, error: OSError) -> BadData:
    return BadData(f"could not be written ({error.strerror or error})", file=file)


@contextmanager
def row_writer(file: Path, mode: Literal["wb", "ab"]) -> Iterator[Write]:
    """Gives `write(row)`: one line, which can be read at once. BadData where there is no room."""
    try:
        stream = file.open(mode, buffering=0)
    except OSError as error:
        raise unwritable(file, error) from error
    with stream:

        def write(row: dict[str, Any]) -> None:
            line = (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
            try:
                while line:
                    line = line[stream.write(line) :]
            except OSError as error:
                raise unwritable(file, error) from error

        yield write
