"""What verbs return and write as JSON: one object, or files of rows that grow row by row."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring import events
from mainspring.errors import BadData, BadOption

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from mainspring.data.skipped import SkipLog

Write = Callable[[dict[str, Any]], None]


def told(counts: Mapping[str, int]) -> str:
    """What was counted, for a line: "3 tag repairs, 1 …"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def tell_skipped(skipped: "SkipLog") -> None:
    """Warns of rows that were left out, why and where first, and of what was put right."""
    listed = "" if skipped.path is None else f", listed in {skipped.path}"
    if skipped.total:
        events.warn(f"{skipped.total} rows skipped: {skipped.summary()}{listed}")
    if skipped.mended:
        events.warn(f"put right: {skipped.mendings()}{listed}")


def joined(row: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the user's with the columns that are added to it. One of its own that is called as
    an added one is kept, as `input_…`."""
    kept: dict[str, Any] = {}
    for name, value in row.items():
        while name in added or name in kept:
            name = f"input_{name}"
        kept[name] = value
    return {**kept, **added}


def holds(written: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether `written`, read back from JSON, is `joined` of this row: a NaN equals no other."""

    def text(value: Any) -> str:
        return json.dumps(value, default=str)

    def is_there(name: str, value: Any) -> bool:
        while name in written:
            if text(written[name]) == text(value):
                return True
            name = f"input_{name}"
        return False

    return all(is_there(name, value) for name, value in row.items())


def json_line(result: "DataclassInstance") -> str:
    """What a verb returns, as one JSON object. The exit code is the process's own to tell."""
    shown = {name: value for name, value in asdict(result).items() if name != "exit_code"}
    return json.dumps(shown, ensure_ascii=False)


def unwritable(file: Path, error: OSError) -> BadData:
    return BadData(f"could not be written ({error.strerror or error})", file=file)


def make_folder(folder: Path, out: Path) -> None:
    """Makes the folder that `--out` needs, where it is not there; BadOption where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"--out {out}: cannot be made ({error.strerror})") from error


def note_made(file: Path, part: Path, made: Mapping[str, Any]) -> Path:
    """Writes beside the unfinished output `part` of `file` how it is made, and says where; BadData
    where what is there was made otherwise."""
    note = file.with_name(file.name + ".made.json")
    text = json.dumps(made, ensure_ascii=False, default=str)
    if part.exists() and note.exists():
        before, now = json.loads(note.read_text(encoding="utf-8")), json.loads(text)
        if other := [name for name in now if before.get(name) != now[name]]:
            raise BadData(
                f"this unfinished output was made with another {', '.join(other)}; remove it or "
                "name another",
                file=part,
            )
    try:
        note.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(note, error) from error
    return note


@contextmanager
def unfinished(count: Callable[[], int], what: str, part: Path, *others: Path) -> Iterator[None]:
    """Around the making of an output: where it ends early, the error tells how many of `what` are
    kept in `part`, or where there is none the files go."""
    try:
        yield
    except BaseException as error:
        kept = f"{part}: {count()} {what} kept, the same command goes on"
        if count() and isinstance(error, GeneratorExit):  # what stopped whoever takes the rows
            events.note(kept)  # is not seen here
        elif count():
            error.add_note(kept)
        else:
            for file in (part, *others):
                file.unlink(missing_ok=True)
        raise


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
