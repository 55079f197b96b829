"""Lists of terms: how words are to be translated."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mainspring.data.rows import flaw, open_text
from mainspring.errors import BadData, Missing
from mainspring.text import SPACELESS_CHARACTER


@dataclass(frozen=True)
class Term:
    """Where `source` occurs as words of their own, letter case aside, `target` is to be written
    exactly as it is."""

    source: str
    target: str

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where `source` stands in a text."""
        return [found.span() for found in _words(self.source, re.IGNORECASE).finditer(text)]

    def is_written(self, text: str) -> bool:
        """Whether `target` stands in a text, and is not a part of other words."""
        return _words(self.target).search(text) is not None


def _words(words: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """A pattern of these words by themselves; in a script without blanks wherever they stand."""
    if SPACELESS_CHARACTER.search(words):
        return re.compile(re.escape(words))
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", flags)


def terms_in(text: str, terms: Iterable[Term]) -> list[Term]:
    """The terms that occur in a text. One that only occurs within a longer one does not count."""
    found = [(term, term.places(text)) for term in terms]
    taken = [(place, len(term.source)) for term, places in found for place in places]

    def stands_alone(place: tuple[int, int], length: int) -> bool:
        return not any(
            size > length and begin <= place[0] and place[1] <= end for (begin, end), size in taken
        )

    return [
        term
        for term, places in found
        if any(stands_alone(place, len(term.source)) for place in places)
    ]


def read_terms(file: str | Path) -> tuple[Term, ...]:
    """The terms in a file: one a line, source and target with a tab between them; lines that are
    empty or begin with "#" do not count. BadData names a line that is no term."""
    path = Path(file)
    if not path.is_file():
        raise Missing(f"--terms {path}: no such file")
    terms: dict[str, Term] = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            cells = [cell.strip() for cell in line.rstrip("\n").split("\t")]
            if len(cells) != 2 or not all(cells):
                problem = "a term is a source and a target with one tab between them"
                raise BadData(problem, file=path, line=number)
            damage = flaw(line)
            if damage is not None:
                raise BadData(damage, file=path, line=number)
            source, target = cells
            before = terms.setdefault(source.casefold(), Term(source, target))
            if before.target != target:
                problem = f"{source!r} has two targets, {before.target!r} and {target!r}"
                raise BadData(problem, file=path, line=number)
    if not terms:
        raise BadData("no terms in it", file=path)
    return tuple(terms.values())
