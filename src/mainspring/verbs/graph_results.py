"""What the graph verbs return: data for Python, lines for the command line."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mainspring.text import shorten

if TYPE_CHECKING:
    from mainspring.graph.asking import Answered, Step
    from mainspring.graph.querying import Results, Term

WIDEST = 80  # characters of a cell in a table for people


@dataclass(frozen=True)
class Done:
    """Facts of what was done, by name; `said` is what a person reads of them."""

    facts: Mapping[str, Any]
    said: Sequence[str]
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json.dumps(dict(self.facts), ensure_ascii=False)
        else:
            yield from self.said


@dataclass(frozen=True)
class Queried:
    """The results of a query, and how the command line shows them: "table", "csv", "tsv" or "json"
    (SPARQL 1.1's own). A no to a yes-or-no question has the exit code 1."""

    results: "Results"
    shown_as: str = "table"
    prefixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 1 if self.results.answer is False else 0

    @property
    def rows(self) -> list[dict[str, str | None]]:
        """The rows by variable, values as plain texts."""
        from mainspring.graph.querying import rows_of

        return list(rows_of(self.results))

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json or self.shown_as == "json":
            yield json.dumps(self.as_json(), ensure_ascii=False)
        elif self.results.answer is not None:
            yield "yes" if self.results.answer else "no"
        elif self.shown_as == "table":
            yield from self._table()
        else:
            yield from self._delimited("," if self.shown_as == "csv" else "\t")

    def as_json(self) -> dict[str, Any]:
        """SPARQL 1.1 Query Results JSON; graphs are rows of subject, predicate, object."""
        head = {"vars": list(self.results.variables)}
        if self.results.answer is not None:
            return {"head": {}, "boolean": self.results.answer}
        bindings = [
            {
                name: term.as_json()
                for name, term in zip(self.results.variables, row, strict=True)
                if term is not None
            }
            for row in self.results.rows
        ]
        return {"head": head, "results": {"bindings": bindings}}

    def _delimited(self, delimiter: str) -> Iterator[str]:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="")
        rows = ([("" if t is None else t.value) for t in row] for row in self.results.rows)
        for row in (self.results.variables, *rows):
            out.seek(0)
            out.truncate()
            writer.writerow(row)
            yield out.getvalue()

    def _table(self) -> Iterator[str]:
        rows = [[self._short(term) for term in row] for row in self.results.rows]
        heading = list(self.results.variables)
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
        for row in (heading, ["-" * width for width in widths], *rows):
            cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()

    def _short(self, term: "Term | None") -> str:
        """A term in a table's cell: IRIs with their prefixes, texts on one line."""
        if term is None:
            return ""
        if term.kind == "uri":
            for name, start in self.prefixes.items():
                if term.value.startswith(start):
                    return f"{name}:{term.value[len(start) :]}"
        return shorten(" ".join(term.value.split()), WIDEST)


@dataclass(frozen=True)
class Asked:
    """The answers to a question in words; the exit code is 1 where there is none."""

    answered: "Answered"
    names: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        return 0 if self.answered.answers else 1

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json.dumps(self.as_json(), ensure_ascii=False)
            return
        found = self.answered
        if not found.answers:
            yield f"I do not know: {found.problem}."
            yield from self._notes()
            if found.known:
                yield "What the graph holds:"
            for step in found.known:
                yield from self._told(step)
            return
        if not found.sure:
            yield f"Not sure (fits by {found.score:.2f} of 1), perhaps:"
        yield from self._notes()
        if found.kind == "whether":
            yield "yes"
        if found.count is not None:
            yield f"{found.count} in the graph"
        for answer in found.answers:
            if found.kind != "whether":
                yield answer.label
            for step in answer.path:
                yield from self._told(step)

    def _notes(self) -> Iterator[str]:
        yield from (f"Note: {note}." for note in self.answered.notes)

    def _told(self, step: "Step") -> Iterator[str]:
        yield f"  {self._fact(step)}"
        for at in step.evidence[:3]:
            yield f"    {_where(asdict(at))}"

    def as_json(self) -> dict[str, Any]:
        """Everything: answers, paths with their facts and places, the score; `yes` is true, or null
        where that is not asked or not known."""
        return {
            "question": self.answered.question,
            "kind": self.answered.kind,
            "answers": [
                {
                    "answer": answer.label,
                    "iri": answer.iri,
                    "path": [self._step(step) for step in answer.path],
                }
                for answer in self.answered.answers
            ],
            "count": self.answered.count,
            "yes": self.answered.yes,
            "score": round(self.answered.score, 4),
            "sure": self.answered.sure,
            "problem": self.answered.problem,
            "notes": list(self.answered.notes),
            "known": [self._step(step) for step in self.answered.known],
        }

    def _step(self, step: "Step") -> dict[str, Any]:
        evidence = [asdict(at) for at in step.evidence]
        return {**asdict(step.edge), "said": self._fact(step), "evidence": evidence}

    def _fact(self, step: "Step") -> str:
        head, relation, tail = (
            self.names.get(name, name)
            for name in (step.edge.head, step.edge.relation, step.edge.tail)
        )
        return f"{head} ─ {relation} → {tail}"


def _where(at: Mapping[str, Any]) -> str:
    """A place as a person reads it."""
    place = at["place"]
    if at["start"] is not None:
        place += f", characters {at['start']} to {at['end']}"
    elif at["line"] is not None:
        place += f", line {at['line']}"
    score = "" if at["score"] is None else f", score {at['score']:.2f}"
    text = f": {' '.join(at['text'].split())}" if at["text"] else ""
    return f"{place}{score}{text}"
