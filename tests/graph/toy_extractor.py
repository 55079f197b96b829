"""An extractor by rules, for names that begin with capitals and three relations; and stores."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mainspring.graph import building, store
from mainspring.graph.records import Document, Extractor, Found, Mention, Relation

NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+)*|[\u4e00-\u9fff]{2}"
RELATED = re.compile(
    rf"(?P<head>{NAME}) ?(?P<type>was born in|works for|knows|认识) ?(?P<tail>{NAME})"
)
KINDS = {"Warsaw": "City", "Paris": "City", "Acme": "Company"}


def mention(match: re.Match[str], group: str | int = 0) -> Mention:
    return Mention(*match.span(group), match[group], KINDS.get(match[group], "Person"), 0.9)


def extract(passages: Sequence[str]) -> Iterator[Found]:
    for passage in passages:
        mentions = tuple(mention(match) for match in re.finditer(NAME, passage))
        relations = tuple(
            Relation(mention(match, "head"), match["type"], mention(match, "tail"), 0.75)
            for match in RELATED.finditer(passage)
        )
        yield Found(mentions, relations)


TOY = Extractor(("toy",), "toy 1", extract)

CURIE = "Marie Curie was born in Warsaw. Pierre Curie knows Marie Curie."
ACME = "Ann Lee works for Acme. Marie Curie was born in Warsaw.\n\nBob Ray works for Acme."


def documents(**texts: str) -> list[Document]:
    return [Document(f"file:///{name}", text, name) for name, text in texts.items()]


def build(
    folder: Path,
    docs: Iterable[Document],
    extractor: Extractor = TOY,
    **settings: Any,
) -> building.Built:
    with store.writing(folder, "building") as graph:
        return building.build(docs, graph, extractor, building.Settings(**settings))


def quads(folder: Path, *, times: bool = False) -> set[str]:
    """Everything in a store, but for the times."""
    with store.reading(folder) as graph:
        found = {str(quad) for quad in graph.rdf}
    return found if times else {quad for quad in found if "endedAtTime" not in quad}
