"""SPARQL with limits: the query runs in a process of its own, which can be ended.

Oxigraph answers a query in one piece of native code that nothing interrupts, so a limit on time
needs a process. It opens the store for reading only and sends rows until the limit.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mainspring.errors import BadData, BadOption, Range
from mainspring.graph.vocabulary import prefixes

SECONDS, ROWS = 60.0, 10_000
LONGEST = 1_000_000  # seconds

# What a query may hold beside its words: IRIs, texts and comments.
_QUOTED = re.compile(
    r"<[^<>\"{}|^`\\\s]*>"
    r"|\"\"\".*?\"\"\"|'''.*?'''"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
    r"|#[^\n]*",
    re.DOTALL,
)
_SERVICE = re.compile(r"(?<![\w?$:.-])service(?![\w:.-])", re.IGNORECASE)
_AT = re.compile(r"error at (\d+):(\d+): (.*)", re.DOTALL)
_UPDATE = re.compile(
    r"\s*(?:(?:(?:prefix|base)\b[^>]*>|#[^\n]*)\s*)*(insert|delete|drop|clear|load|create|add|move|copy|with)\b",
    re.IGNORECASE,
)
_CLASSES = re.compile(r"\s*\[[^\]]*\](?:\s*\|?\s*)|,\s*$")


@dataclass(frozen=True)
class Term:
    """A value: `kind` as in SPARQL's JSON results ("uri", "literal", "bnode")."""

    kind: Literal["uri", "literal", "bnode"]
    value: str
    datatype: str = ""
    language: str = ""

    def as_json(self) -> dict[str, str]:
        made = {"type": self.kind, "value": self.value}
        if self.datatype:
            made["datatype"] = self.datatype
        if self.language:
            made["xml:lang"] = self.language
        return made


@dataclass(frozen=True)
class Results:
    """What a query gave: `rows` of terms (None where a variable has no value) under the names of
    `variables`, or `answer` where it asked yes or no. Graphs come as rows of three. `more` is
    whether the limit cut rows off."""

    variables: tuple[str, ...]
    rows: tuple[tuple[Term | None, ...], ...]
    answer: bool | None = None
    is_graph: bool = False
    more: bool = False


def run_query(
    folder: Path, base: str, query: str, *, seconds: float = SECONDS, rows: int = ROWS
) -> Results:
    """The results of a SPARQL query (SELECT, ASK, CONSTRUCT, DESCRIBE) on the store at `folder`.

    The default graph holds each fact once; `GRAPH ?document { … }` is what a document states, with
    provenance. BadOption where the query is none, takes more than `seconds`, or asks other servers.
    """
    Range(0.001, LONGEST).check("--seconds", seconds)
    Range(1).check("--rows", rows)
    if not query.strip():
        raise BadOption("the query is empty; it reads like SELECT ?a ?b { ?a relation:NAME ?b }")
    if _SERVICE.search(_QUOTED.sub(" ", query)):
        raise BadOption("SERVICE is refused: a query reads this store only")
    task = {"triples": str(folder / "triples"), "query": query, "rows": rows}
    command = [sys.executable, "-m", "mainspring.graph.querying"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(task | {"prefixes": prefixes(base)}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise BadOption(
            f"the query took more than {seconds:g} seconds; ask for less, or give --seconds"
        ) from None
    if done.returncode != 0:
        raise BadData(f"the query failed: {done.stderr.strip()[-400:]}", file=folder)
    said = json.loads(done.stdout)
    if "syntax" in said:
        raise BadOption(syntax_message(query, said["syntax"]))
    if "error" in said:
        raise BadData(f"the query failed: {said['error']}", file=folder)
    made = tuple(tuple(None if t is None else Term(*t) for t in row) for row in said["rows"])
    return Results(tuple(said["variables"]), made, said["answer"], said["is_graph"], said["more"])


def syntax_message(query: str, problem: str) -> str:
    """Where a query is wrong, with its line and a mark below the place."""
    match = _AT.match(problem)
    if match is None:
        return f"not a SPARQL query: {problem}"
    line, column = int(match[1]), int(match[2])
    expected = " ".join(_CLASSES.sub(" ", match[3]).split()).rstrip(" ,")
    if _UPDATE.match(query):
        return "`graph query` only reads; documents come by `build` and `import`, go by `withdraw`"
    lines = query.splitlines() or [""]
    shown = lines[line - 1] if line <= len(lines) else ""
    mark = " " * (column - 1) + "^"
    return f"not a SPARQL query: line {line}, column {column}: {expected}\n  {shown}\n  {mark}"


# -- the other process -----------------------------------------------------------------------------


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """What the process says: results, or what is wrong."""
    import pyoxigraph as ox

    try:
        store = ox.Store.read_only(task["triples"])
        found = store.query(task["query"], prefixes=task["prefixes"])
        result: dict[str, Any] = {"variables": [], "rows": [], "answer": None, "more": False}
        result["is_graph"] = isinstance(found, ox.QueryTriples)
        if isinstance(found, ox.QueryBoolean):
            return result | {"answer": bool(found)}
        names = ["subject", "predicate", "object"]
        if isinstance(found, ox.QuerySolutions):
            names = [variable.value for variable in found.variables]
        rows: list[list[tuple[str, ...] | None]] = []
        for row in found:
            if len(rows) == task["rows"]:
                result["more"] = True
                break
            rows.append([_term(value) for value in row])
        return result | {"variables": names, "rows": rows}
    except SyntaxError as error:
        return {"syntax": str(error)}
    except (OSError, RuntimeError, ValueError) as error:
        return {"error": str(error)}


def _term(value: Any) -> tuple[str, ...] | None:
    import pyoxigraph as ox

    match value:
        case None:
            return None
        case ox.NamedNode():
            return "uri", value.value
        case ox.BlankNode():
            return "bnode", value.value
        case ox.Literal():
            plain = value.language or value.datatype.value.endswith("#string")
            return (
                "literal",
                value.value,
                "" if plain else value.datatype.value,
                (value.language or ""),
            )
        case _:
            return "literal", str(value)


def rows_of(results: Results) -> Iterator[dict[str, str | None]]:
    """Rows by variable, values as plain texts."""
    for row in results.rows:
        values = (None if term is None else term.value for term in row)
        yield dict(zip(results.variables, values, strict=True))


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
