"""Texts annotated with brat: `a.txt`, and beside it `a.ann` with a line for each mark.

    T1   Person 0 5     Marie          an entity: its type, its place in characters, its words
    T2   City 20 25     Paris
    R1   Lives_in Arg1:T1 Arg2:T2      a relation from the first to the second
    E1 … A1 … N1 … #1 … * …            events, attributes, links, notes, equals: passed over

Tabs part what is shown apart here (https://brat.nlplab.org/standoff.html). An entity in several
pieces (`0 5;9 12`) is left aside with its relations, and counted.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainspring.data.documents import read_whole
from mainspring.data.rows import UNDECODABLE, Row, open_text
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData

SUFFIX = ".ann"

_ENTITY = re.compile(
    r"(?P<id>T\S*)\t(?P<label>\S+) (?P<places>\d+ \d+(;\d+ \d+)*)(\t(?P<text>.*))?"
)
_RELATION = re.compile(r"R\S*\t(?P<type>\S+) \S+?:(?P<head>\S+) \S+?:(?P<tail>\S+)\s*")
_PASSED_OVER = ("E", "A", "M", "N", "#", "*", "W")


def text_of(annotations: Path) -> Path:
    """The text that belongs to a file of annotations."""
    return annotations.with_suffix(".txt")


def read_brat(path: Path, skipped: SkipLog) -> Iterator[Row]:
    """One row, with `text`, `entities` (label, start, end, id, text) and, where there are any,
    `relations` (type, from_id, to_id). A line of another form costs the whole text, which is
    listed. BadData where there is no text beside the file."""
    if not text_of(path).is_file():
        raise BadData(
            f"no {text_of(path).name} beside it, the text of these annotations", file=path
        )
    text = read_whole(text_of(path), skipped, newline="")
    if text is None:
        return
    entities: list[dict[str, Any]] = []
    relations: list[dict[str, Any]] = []
    in_pieces: dict[str, int] = {}  # ids, and the lines they stand in
    with open_text(path) as file:
        for number, line in enumerate((line.rstrip("\n") for line in file), 1):
            if UNDECODABLE in line:
                skipped.add("undecodable bytes", file=path, line=number, raw=line)
                return
            if found := _ENTITY.fullmatch(line):
                start, _, end = found["places"].partition(" ")
                if ";" in end:
                    in_pieces[found["id"]] = number
                    continue
                entity = {"id": found["id"], "label": found["label"]}
                entity |= {"start": int(start), "end": int(end)}
                entities.append(entity | ({"text": found["text"]} if found["text"] else {}))
            elif found := _RELATION.fullmatch(line):
                ends = {"from_id": found["head"], "to_id": found["tail"]}
                relations.append({"type": found["type"], **ends})
            elif line.strip() and not line.startswith(_PASSED_OVER):
                detail = "not of brat's form: ID, tab, type and places, tab, words"
                skipped.add("wrong type", file=path, line=number, detail=detail, raw=line)
                return
    kept = [one for one in relations if not {one["from_id"], one["to_id"]} & in_pieces.keys()]
    for name, number in in_pieces.items():
        detail = f"{name}; and {len(relations) - len(kept)} relations of such entities"
        skipped.mend("entity in several pieces", file=path, line=number, detail=detail)
    values: dict[str, Any] = {"text": text, "entities": entities}
    yield Row(values | ({"relations": kept} if kept else {}), str(path), 1)
