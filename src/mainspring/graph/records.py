"""What flows from a document to the store. Offsets count characters."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """A text and where it is: `iri` names it in the graph, `place` for a person."""

    iri: str
    text: str
    place: str


@dataclass(frozen=True)
class Mention:
    """`text` stands at `start` to `end` and names something of a `type` ("" where none is told).
    `score` (0 to 1) is the extractor's; None where it gives none."""

    start: int
    end: int
    text: str
    type: str = ""
    score: float | None = None

    def moved(self, by: int) -> "Mention":
        return Mention(self.start + by, self.end + by, self.text, self.type, self.score)


@dataclass(frozen=True)
class Relation:
    """`head` stands in the relation `name` to `tail`."""

    head: Mention
    name: str
    tail: Mention
    score: float | None = None

    def moved(self, by: int) -> "Relation":
        return Relation(self.head.moved(by), self.name, self.tail.moved(by), self.score)


@dataclass(frozen=True)
class Found:
    """What was found in one passage; `lost` counts answers of a model that are not in the text."""

    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    lost: int = 0


Extract = Callable[[Sequence[str]], Iterable[Found]]


@dataclass(frozen=True)
class Extractor:
    """Finds mentions and relations: one `Found` for each passage, in order.

    `models` name what it is made of, for the provenance. `key` changes whenever the same passage
    could give something else (other weights, other options): documents are then read again.
    """

    models: tuple[str, ...]
    key: str
    extract: Extract = field(compare=False)
