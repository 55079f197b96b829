"""Which entity a mention is: an alias table, re-ranked by context where a name means several.

Every link says how it was made:

    alias      the table knows the name, with one meaning (of the mention's type, where it has one)
    context    several meanings; the encoder found this one nearest to the sentence
    order      several meanings and no encoder: the table's first
    name       no table knows it: an entity of its own, by its normal form and type
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mainspring.data.readers import columns, read_rows, sources
from mainspring.data.schema import Field, examples, match_columns
from mainspring.data.skipped import SkipLog
from mainspring.graph.records import Mention
from mainspring.graph.vocabulary import digest, entity_iri, given_iri, normal

# Texts to one vector of length 1 each, as rows of a matrix (texts, width).
Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

FIELDS = (
    Field("alias", "text", ("alias", "name", "surface", "mention"), "a name as texts have it"),
    Field("id", "label", ("id", "entity", "iri", "uri"), "the entity's identifier, or its IRI"),
    Field("label", "text?", ("label", "title"), "the name to show", required=False),
    Field("type", "text?", ("type", "class", "kind"), "what kind of thing it is", required=False),
    Field(
        "description",
        "text?",
        ("description", "gloss"),
        "what tells it from others of its name",
        required=False,
    ),
)


@dataclass(frozen=True)
class Candidate:
    """An entity that an alias may mean."""

    id: str
    label: str
    type: str = ""
    description: str = ""

    @property
    def gloss(self) -> str:
        """What the encoder compares with the sentence."""
        return ": ".join(part for part in (self.label, self.type, self.description) if part)


@dataclass(frozen=True)
class Aliases:
    """Names in their normal form, with the entities they may mean in the table's order; `key`
    changes with what the table says."""

    entries: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class Link:
    """The entity that a mention was taken for. `score` (0 to 1) is 1 where nothing else came into
    question, the cosine for "context", one in how many for "order"."""

    iri: str
    label: str
    type: str
    how: Literal["alias", "context", "order", "name"]
    score: float


def read_aliases(path: str | Path, skipped: SkipLog) -> Aliases:
    """The alias table at `path` (CSV, TSV, JSONL …): columns alias, id, and perhaps label, type and
    description. A label is an alias of its own. Raises what the readers raise."""
    entries: dict[str, dict[str, Candidate]] = {}
    for source in sources(path):
        matched = match_columns(FIELDS, columns(source), file=path)
        for example in examples(read_rows(source, skipped), FIELDS, matched, skipped):
            values = {name: value for name, value in example.values.items() if value}
            label = values.get("label", values["alias"])
            candidate = Candidate(
                values["id"], label, values.get("type", ""), values.get("description", "")
            )
            for name in {values["alias"], label}:
                entries.setdefault(normal(name), {}).setdefault(candidate.id, candidate)
    found = {name: tuple(candidates.values()) for name, candidates in entries.items()}
    return Aliases(found, digest(*found.items()))


def link(
    mention: Mention, context: str, aliases: Aliases, base: str, encode: Encode | None = None
) -> Link:
    """The entity of a mention that stands in `context` (a passage)."""
    name = " ".join(mention.text.split())
    candidates = aliases.entries.get(normal(name), ())
    same = tuple(c for c in candidates if normal(c.type) == normal(mention.type))
    candidates = same or candidates
    if not candidates:
        return Link(entity_iri(base, name, mention.type), name, mention.type, "name", 1.0)
    if len(candidates) == 1:
        return _linked(candidates[0], mention, base, "alias", 1.0)
    if encode is None:
        return _linked(candidates[0], mention, base, "order", 1 / len(candidates))
    vectors = encode([context, *(candidate.gloss for candidate in candidates)])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    best = max(range(len(cosines)), key=cosines.__getitem__)
    return _linked(candidates[best], mention, base, "context", min(1.0, max(0.0, cosines[best])))


def _linked(
    candidate: Candidate,
    mention: Mention,
    base: str,
    how: Literal["alias", "context", "order"],
    score: float,
) -> Link:
    iri = given_iri(base, "entity", candidate.id)
    return Link(iri, candidate.label, candidate.type or mention.type, how, score)
