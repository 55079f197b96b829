"""Documents into the store: what is done is passed over, each document is one transaction."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest

from mainspring import events
from mainspring.errors import BadOption, Mismatch
from mainspring.graph import vocabulary as v
from mainspring.graph.linking import Aliases, Encode, Link, link
from mainspring.graph.passages import passages
from mainspring.graph.records import Document, Extractor, Found, Mention, Relation
from mainspring.graph.store import GraphStore
from mainspring.graph.writing import Origin, write_document

TOGETHER = 64  # passages that are given to the extractor at a time, at least
SHORTEST_PASSAGE = 40


@dataclass(frozen=True)
class Settings:
    """How documents are read and names linked: `passage` is the longest passage in characters,
    `min_score` (0 to 1) what relations and mentions with a score must have to be kept. `encode`
    looks at the context where a name means several, `encoder` names its model."""

    passage: int = 600
    min_score: float = 0.0
    aliases: Aliases = field(default_factory=Aliases)
    encode: Encode | None = None
    encoder: str = ""


@dataclass
class Built:
    """What a build did: documents read now, found done, and written anew because they or the
    settings changed; what the documents read now say; how their mentions were linked; and the
    answers of the models that are not in the text."""

    documents: int = 0
    done_before: int = 0
    replaced: int = 0
    mentions: int = 0
    relations: int = 0
    lost: int = 0
    links: Counter[str] = field(default_factory=Counter)


def build(
    documents: Iterable[Document],
    store: GraphStore,
    extractor: Extractor,
    settings: Settings,
    total: int | None = None,
) -> Built:
    """Reads `documents`, `total` of them, into `store`. Those whose text and settings are those of
    an earlier build are passed over; a changed one takes its own place. BadOption for settings out
    of range."""
    check(settings)
    key = v.digest(
        extractor.key,
        settings.passage,
        settings.min_score,
        settings.aliases.key,
        settings.encoder,
    )
    built = Built()
    show = events.counter("graph", total, "documents")
    for chunk in _chunks(_to_do(documents, store, key, built), settings.passage):
        texts = [doc.text[start:end] for doc, spans in chunk for start, end in spans]
        found = _extracted(extractor, texts)
        for document, spans in chunk:
            read = _placed(document, spans, found, settings.min_score)
            _write(
                document,
                spans,
                read,
                store,
                settings,
                Origin(extractor.models, key, datetime.now(UTC)),
                built,
            )
            show(built.done_before + built.documents)
        next(found, None)  # raises where there is one answer too many
    done = built.done_before + built.documents
    events.emit(events.Progress("graph", done, done, "documents"))
    return built


def check(settings: Settings) -> None:
    """BadOption where a setting is out of range."""
    if settings.passage < SHORTEST_PASSAGE:
        raise BadOption(f"--passage must be at least {SHORTEST_PASSAGE} characters")
    if not 0 <= settings.min_score <= 1:
        raise BadOption("--min-score must lie between 0 and 1")


def _to_do(
    documents: Iterable[Document], store: GraphStore, key: str, built: Built
) -> Iterator[Document]:
    for document in documents:
        if store.is_done(document.iri, v.digest(document.text), key):
            built.done_before += 1
        else:
            yield document


Cut = tuple[Document, list[tuple[int, int]]]


def _chunks(documents: Iterable[Document], limit: int) -> Iterator[list[Cut]]:
    """Documents with their passages, as many together as give an extractor something to do."""
    chunk: list[Cut] = []
    held = 0
    for document in documents:
        spans = passages(document.text, limit)
        chunk.append((document, spans))
        held += len(spans)
        if held >= TOGETHER:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _extracted(extractor: Extractor, texts: Sequence[str]) -> Iterator[Found]:
    """What is found in each passage, as soon as it is; Mismatch where that cannot be true."""
    who = ", ".join(extractor.models)
    for done, (text, found) in enumerate(zip_longest(texts, extractor.extract(texts)), 1):
        if text is None or found is None:
            raise Mismatch(f"{who}: more or fewer answers than the {len(texts)} passages")
        for mention in _mentions(found):
            if text[mention.start : mention.end] != mention.text or not mention.text.strip():
                at = f"{mention.start} to {mention.end}"
                raise Mismatch(f"{who}: {mention.text!r} is not what stands at {at}")
        events.emit(events.Progress("extraction", done, len(texts), "passages"))
        yield found


def _mentions(found: Found) -> Iterator[Mention]:
    """All mentions, those that only relations speak of too."""
    yield from found.mentions
    for relation in found.relations:
        yield from (relation.head, relation.tail)


def _placed(
    document: Document, spans: Sequence[tuple[int, int]], found: Iterator[Found], least: float
) -> Found:
    """What the passages of a document say, in the document's own offsets."""
    mentions: list[Mention] = []
    relations: dict[object, Relation] = {}
    lost = 0
    for (start, _), one in zip(spans, found, strict=False):  # the rest is of other documents
        kept = [r for r in one.relations if _enough(r.score, least)]
        for relation in (r.moved(start) for r in kept):
            said = _place(relation.head), v.slug(relation.name), _place(relation.tail)
            if said not in relations or (relation.score or 0) > (relations[said].score or 0):
                relations[said] = relation
        alone = [m for m in one.mentions if _enough(m.score, least)]
        mentions += [m.moved(start) for m in _mentions(Found(tuple(alone), tuple(kept)))]
        lost += one.lost
    return Found(tuple(mentions), tuple(relations.values()), lost)


def _place(mention: Mention) -> tuple[int, int]:
    return mention.start, mention.end


def _enough(score: float | None, least: float) -> bool:
    return score is None or score >= least


def _write(
    document: Document,
    spans: Sequence[tuple[int, int]],
    read: Found,
    store: GraphStore,
    settings: Settings,
    origin: Origin,
    built: Built,
) -> None:
    links = _linked(document, spans, read.mentions, settings, store.base)
    content = v.digest(document.text)
    written = write_document(document, links, read.relations, spans, content, origin, store.base)
    built.replaced += store.has(document.iri)
    store.replace(written)
    built.documents += 1
    built.mentions += len(links)
    built.relations += len(read.relations)
    built.lost += read.lost
    built.links.update(found.how for _, found in links)


def _linked(
    document: Document,
    spans: Sequence[tuple[int, int]],
    mentions: Iterable[Mention],
    settings: Settings,
    base: str,
) -> list[tuple[Mention, Link]]:
    """One link for each place; of mentions at one place the typed and the surest counts."""
    best: dict[tuple[int, int], Mention] = {}
    for mention in mentions:
        place = _place(mention)
        if place not in best or _rank(mention) > _rank(best[place]):
            best[place] = mention
    links = []
    at = 0
    for place in sorted(best):
        while at + 1 < len(spans) and spans[at][1] <= place[0]:
            at += 1
        context = document.text[slice(*spans[at])]
        found = link(best[place], context, settings.aliases, base, settings.encode)
        links.append((best[place], found))
    return links


def _rank(mention: Mention) -> tuple[bool, float]:
    return bool(mention.type), mention.score or 0.0
