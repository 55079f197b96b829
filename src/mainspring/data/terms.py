"""Lists of terms: how words are to be translated."""

import re
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

    def occurs(self, text: str) -> bool:
        if SPACELESS_CHARACTER.search(self.source):
            return self.source in text
        pattern = rf"(?<!\w){re.escape(self.source)}(?!\w)"
        return re.search(pattern, text, re.IGNORECASE) is not None


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
