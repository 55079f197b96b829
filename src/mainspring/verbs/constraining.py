"""What `run` is told its output must fit: a schema or grammar from a file, a pattern, choices."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mainspring.errors import BadOption, Missing
from mainspring.generation.grammars import compiled

OPTIONS = ("schema", "grammar", "regex", "choices")


def stated(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """(the option that was given, the grammar it states in a `Constraint`'s form); None where none
    was. BadOption or Missing say what is wrong with it, or that two were given."""
    given = [name for name in OPTIONS if options[name] is not None]
    if not given:
        return None
    if len(given) > 1:
        raise BadOption(f"{' and '.join('--' + name for name in given)}: give one of them")
    [name] = given
    flag, value = f"--{name}", options[name]
    return flag, _compiled(flag, name, value)


def _compiled(flag: str, name: str, value: Any) -> str:
    match name:
        case "schema" if isinstance(value, Mapping):
            return compiled(flag, json_schema=value)
        case "schema":
            return compiled(f"{flag} {value}", json_schema=_text(flag, value))
        case "grammar":
            return compiled(f"{flag} {value}", grammar=_text(flag, value))
        case "regex":
            return compiled(flag, regex=value)
    choices: Sequence[str] = value
    return compiled(flag, choices=choices)


def _text(flag: str, name: str | Path) -> str:
    """The text of a file; Missing offers the name that is most alike."""
    file = Path(name)
    if not file.is_file():
        there = [other.name for other in file.parent.glob("*") if other.is_file()]
        near = difflib.get_close_matches(file.name, there, n=1, cutoff=0.6)
        hint = f"; did you mean `{file.with_name(near[0])}`?" if near else ""
        raise Missing(f"{flag} {file}: no such file{hint}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadOption(f"{flag} {file}: not a text in UTF-8") from None
