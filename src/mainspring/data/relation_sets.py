"""Relations as published data sets write them down, brought into the forms of `data.relations`.

    TACRED      token; subj_start, subj_end, subj_type; obj_…; relation         places in words
    FewRel      tokens; h and t as [name, id, [[places]]]; relation             also by `datasets`
    OpenNRE     token or text; h and t with name and pos; relation              Wiki80, NYT10
    DocRED      sents; vertexSet; labels with h, t, r                           also by `datasets`
    SciERC      sentences; ner; relations as [start, end, start, end, name]     also ACE by DyGIE++
    NYT         sentText; entityMentions; relationMentions
    REBEL       context; triplets as `<triplet> head <subj> tail <obj> name`; or triples with
                boundaries, as in T-REx
    SemEval     the text file of 2010's task 8: numbered sentences, each with a line of its relation

A row is told by its columns; one of any other form stays as it is. Of several mentions of one
entity the first is taken that lies over none of the others.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data.annotated import annotated
from mainspring.data.entities import join_words
from mainspring.data.kinds import Flaw, as_promised, whole
from mainspring.data.readers import read_rows
from mainspring.data.relations import TRIPLET, occurrences, read_triples
from mainspring.data.rows import Row
from mainspring.data.skipped import SkipLog

Values = dict[str, Any]

WORDS = ("token", "tokens")
HEADS, TAILS = ("h", "head"), ("t", "tail")
NAMES = ("word", "name", "text")
PLACES = ("subj_start", "subj_end", "obj_start", "obj_end")
NUMBERED = re.compile(r'\s*\d+\t".*<e1>')


def published(row: Row) -> list[Row]:
    """The rows that one of a published data set holds, each with words or a text, entities and
    relations. Flaw where it has the columns of one and not what they must hold."""
    with as_promised():
        return list(_unfolded(row))


def _unfolded(row: Row) -> Iterator[Row]:
    values = row.values
    if values.keys() >= {*PLACES} and _first(values, WORDS) is not None:
        yield replace(row, values=_tacred(row))
    elif values.keys() >= {"sents", "vertexSet"}:
        yield replace(row, values=_docred(values))
    elif "sentText" in values and "relationMentions" in values:
        yield replace(row, values=_nyt(values))
    elif _is_nested(values.get("sentences")) and "ner" in values:
        yield from (replace(row, values=found) for found in _scierc(values))
    elif isinstance(values.get("triplets"), str) and TRIPLET in values["triplets"]:
        yield replace(row, values=_rebel(values))
    elif _bounded(values.get("triples")):
        yield replace(row, values=_trex(values))
    elif all(isinstance(_first(values, end), Mapping | list) for end in (HEADS, TAILS)):
        yield replace(row, values=_placed_ends(values))
    elif set(values) == {"text"} and NUMBERED.match(str(values["text"])):
        yield from _semeval(row)
    else:
        yield from annotated(row)


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _without(values: Values, *names: str) -> Values:
    return {name: value for name, value in values.items() if name not in names}


def _words(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise Flaw("wrong type", "the words of the text must be a list of texts")
    return given


def _two_ends(words: list[str], head: tuple[int, int], tail: tuple[int, int]) -> Values:
    """Text, head and tail of words and two places in them, the ends not included."""
    text, spans = join_words(words)
    found: Values = {"text": text}
    for name, (start, end) in (("head", head), ("tail", tail)):
        if not 0 <= start < end <= len(words):
            raise Flaw("offsets out of range", f"{name} {start}-{end} in {len(words)} words")
        span = [spans[start][0], spans[end - 1][1]]
        found |= {name: text[span[0] : span[1]], f"{name}_span": span}
    return found


# -- TACRED ----------------------------------------------------------------------------------------

LOOKED_AT = 1000  # rows that tell how ends are counted
TOLD_BY = 10  # among so many rows some entity is a single word


def _tacred(row: Row) -> Values:
    values = row.values
    places = [whole(values[name]) for name in PLACES]
    if any(place is None for place in places):
        raise Flaw("wrong type", f"{', '.join(PLACES)} must be whole numbers")
    first, last, other, other_last = (place for place in places if place is not None)
    path = Path(row.file)
    past = not path.is_file() or _ends_included(row.file, path.stat().st_mtime_ns)
    words = _words(_first(values, WORDS))
    found = _two_ends(words, (first, last + past), (other, other_last + past))
    for name, kind in (("head", "subj_type"), ("tail", "obj_type")):
        if isinstance(values.get(kind), str):
            found[f"{name}_type"] = values[kind]
    return _without(values, *WORDS, *PLACES, "subj_type", "obj_type") | found


@lru_cache(maxsize=16)
def _ends_included(file: str, changed: int) -> bool:
    """Whether the places of a file end with their last word, as TACRED was published. The loader
    of the `datasets` library puts them one further: then no entity begins where it ends."""
    del changed  # a part of the key
    with SkipLog() as unlisted:
        rows = [row.values for row in itertools.islice(read_rows(file, unlisted), LOOKED_AT)]
    known = [[whole(row.get(name)) for name in PLACES] for row in rows]
    alone = any(a is not None and a == b for row in known for a, b in (row[:2], row[2:]))
    if alone or len(rows) < TOLD_BY:
        return True
    events.note(f"{file}: no entity ends where it begins, so ends are taken as not included")
    return False


# -- FewRel, OpenNRE -------------------------------------------------------------------------------


def _placed_ends(values: Values) -> Values:
    """`h` and `t` (or `head` and `tail`), each with a name and perhaps a place."""
    ends = [_first(values, names) for names in (HEADS, TAILS)]
    kept = _without(values, *HEADS, *TAILS)
    words = _first(values, WORDS)
    places = [_place(one) for one in ends]
    if words is not None and None not in places:
        head, tail = (place for place in places if place is not None)
        return _without(kept, *WORDS) | _two_ends(_words(words), head, tail)
    if words is not None:
        kept = _without(kept, *WORDS) | {"text": join_words(_words(words))[0]}
    for name, one, place in zip(("head", "tail"), ends, places, strict=True):
        words = one[0] if isinstance(one, list) and one else None
        kept[name] = _first(one, NAMES) if isinstance(one, Mapping) else words
        if place is not None:
            kept[f"{name}_span"] = list(place)
    return kept


def _place(given: Any) -> tuple[int, int] | None:
    """Where one end stands, the end not included; None where that is not said."""
    if isinstance(given, Mapping):
        mentions, given = given.get("indices"), given.get("pos")
    else:
        mentions = given[2] if len(given) == 3 else None
    if mentions is not None:
        if not _is_nested(mentions) or not mentions[0]:
            raise Flaw("wrong type", f"places must be lists of whole numbers, not {mentions!r}")
        return min(mentions[0]), max(mentions[0]) + 1
    if given is None:
        return None
    pair = [whole(at) for at in given] if isinstance(given, list) else []
    if len(pair) != 2 or pair[0] is None or pair[1] is None:
        raise Flaw("wrong type", f"a place must be two whole numbers, not {given!r}")
    return pair[0], pair[1]


def _is_nested(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(one, list) for one in given)


# -- DocRED, SciERC --------------------------------------------------------------------------------


def _docred(values: Values) -> Values:
    sentences, entities = values["sents"], values["vertexSet"]
    if not _is_nested(sentences) or not _is_nested(entities):
        raise Flaw("wrong type", "`sents` and `vertexSet` must be lists of lists")
    begins = list(itertools.accumulate(map(len, sentences), initial=0))
    found = [[_mention(one, begins) for one in mentions] for mentions in entities]
    made = {"tokens": list(itertools.chain(*sentences)), "entities": _apart(found)}
    kept = _without(values, "sents", "vertexSet", "labels") | made
    labels = values.get("labels")
    if labels is None:
        return kept
    if isinstance(labels, Mapping):  # a list for each column, as `datasets` has it
        columns = [labels.get(name) or () for name in ("head", "relation_id", "tail")]
        triples = list(zip(*columns, strict=True))
    else:
        triples = [(one["h"], one["r"], one["t"]) for one in labels]
    return kept | {"relations": [{"head": h, "type": r, "tail": t} for h, r, t in triples]}


def _mention(given: Mapping[str, Any], begins: Sequence[int]) -> Values:
    sentence, place = whole(given.get("sent_id")), _place({"pos": given.get("pos")})
    if sentence is None or place is None or not 0 <= sentence < len(begins) - 1:
        raise Flaw("wrong type", f"a mention needs `sent_id` and `pos`, not {given}")
    begin, after = begins[sentence], begins[sentence + 1]
    start, end = begin + place[0], begin + place[1]
    if not begin <= start < end <= after:
        detail = f"{place[0]}-{place[1]} in a sentence of {after - begin} words"
        raise Flaw("offsets out of range", detail)
    return {"start": start, "end": end, "label": given.get("type") or ""}


def _apart(entities: Iterable[Sequence[Values]]) -> list[Values]:
    """Of each entity the first mention that lies over none of those taken, or else its first."""
    taken: list[Values] = []
    for mentions in entities:
        if not mentions:
            raise Flaw("empty entity", "an entity without a mention")
        free = (m for m in mentions if not any(_over(m, other) for other in taken))
        taken.append(next(free, mentions[0]))
    return taken


def _over(a: Values, b: Values) -> bool:
    return bool(a["start"] < b["end"] and b["start"] < a["end"])


def _scierc(values: Values) -> Iterator[Values]:
    """A row for each sentence, with its number from 0. In `ner` and `relations` places count the
    words of the whole document, ends included."""
    named, related = values["ner"], values.get("relations")
    before = 0
    for number, words in enumerate(values["sentences"]):
        entities = [
            {"start": first - before, "end": last - before + 1, "label": label}
            for first, last, label, *_ in named[number]
        ]
        at = {(one["start"], one["end"]): index for index, one in enumerate(entities)}
        found: Values = {"sentence_number": number, "tokens": words, "entities": entities}
        if related is not None:
            found["relations"] = [
                {"head": at.get((a - before, b - before + 1), [a, b])}
                | {"tail": at.get((c - before, d - before + 1), [c, d]), "type": name}
                for a, b, c, d, name, *_ in related[number]
            ]
        before += len(words)
        yield _without(values, "sentences", "ner", "relations", "clusters") | found


# -- relations between words -----------------------------------------------------------------------


def _nyt(values: Values) -> Values:
    text = values["sentText"]
    mentions = values.get("entityMentions") or ()
    relations = [
        {"head": one.get("em1Text"), "tail": one.get("em2Text"), "type": one.get("label")}
        for one in values["relationMentions"] or ()
    ]
    kept = _without(values, "sentText", "entityMentions", "relationMentions")
    found: Values = {"text": text, "relations": relations}
    if mentions and isinstance(text, str):
        found["entities"] = _named_entities(text, mentions)
    return kept | found


def _named_entities(text: str, mentions: Iterable[Mapping[str, Any]]) -> list[Values]:
    """Entities of which only the words are known, the longest placed first; in their order."""
    names = {str(one.get("text")).strip(): str(one.get("label") or "") for one in mentions}
    taken: dict[str, Values] = {}
    for name in sorted(names, key=len, reverse=True):
        places = [{"start": a, "end": b, "label": names[name]} for a, b in occurrences(name, text)]
        if not places:
            raise Flaw("entity not in the text", f"`{name}`")
        free = (p for p in places if not any(_over(p, other) for other in taken.values()))
        taken[name] = next(free, places[0])
    return [taken[name] for name in names]


def _rebel(values: Values) -> Values:
    relations, broken = read_triples(values["triplets"])
    if broken:
        raise Flaw("broken triples", f"{broken} pieces are none: {values['triplets'][:80]}")
    kept = _without(values, "triplets")
    if "text" not in kept and "context" in kept:
        kept["text"] = kept.pop("context")
    return kept | {"relations": relations}


def _bounded(triples: Any) -> bool:
    first = triples[0] if isinstance(triples, list) and triples else None
    return isinstance(first, Mapping) and isinstance(first.get("predicate"), Mapping)


def _trex(values: Values) -> Values:
    relations = [
        {
            "head": _bounds(one["subject"]),
            "type": _first(one["predicate"], ("surfaceform", "uri")),
            "tail": _bounds(one["object"]),
        }
        for one in values["triples"]
    ]
    found: Values = {"relations": relations}
    if isinstance(values.get("entities"), list):
        found["entities"] = [_bounds(one) for one in values["entities"] if one.get("boundaries")]
    return _without(values, "triples", "entities") | found


def _bounds(given: Mapping[str, Any]) -> Values:
    if not given.get("boundaries"):
        return {"text": given.get("surfaceform")}
    start, end = given["boundaries"]
    return {"start": start, "end": end}


# -- SemEval 2010, task 8 --------------------------------------------------------------------------


def _semeval(row: Row) -> Iterator[Row]:
    """The numbered sentences of the task's text file; that of its test has no relations."""
    line = row.line
    for block in re.split(r"^(?=\d+\t)", row.values["text"], flags=re.MULTILINE):
        if block.strip():
            sentence, *others = block.splitlines()
            number, _, text = sentence.partition("\t")
            values = {"id": number, "text": text.strip().removeprefix('"').removesuffix('"')}
            if others and others[0].strip():
                values["relation"] = others[0].strip()
            yield Row(values, row.file, line)
        line += block.count("\n")
