"""Texts with marked spans as annotation tools export them, brought into columns of one form.

    Label Studio    {"data": {"text": …}, "annotations": [{"result": [{"type": "labels", …}]}]}
    doccano         relations between entities by their ids: {"from_id": 4, "to_id": 5, "type": …}
    Prodigy         relations between spans: {"head_span": …, "child_span": …, "label": …}
    CLUENER         {"text": …, "label": {"name": {"叶老桂": [[9, 11]]}}}, the end counted in
    spaCy 2         {"paragraphs": [{"sentences": [{"tokens": [{"orth": …, "ner": "U-ORG"}]}]}]}

What becomes of them are rows with `text`, `entities` (start, end, label, id) and `relations` (head,
tail, type), or with `tokens` and `tags`. Rows of any other form stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mainspring.data.kinds import Flaw, as_promised
from mainspring.data.rows import Row

Values = dict[str, Any]

TEXTS = ("text", "sentence", "content", "document", "body")


def annotated(row: Row) -> list[Row]:
    """The rows that an exported one holds; Flaw where a tool says that it must not be used."""
    with as_promised():
        return list(_unfolded(row))


def _unfolded(row: Row) -> Iterator[Row]:
    values = row.values
    if "_input_hash" in values and values.get("answer") in ("reject", "ignore"):
        raise Flaw("not accepted", f"`answer` is `{values['answer']}`")
    if isinstance(values.get("data"), Mapping) and isinstance(values.get("annotations"), list):
        yield replace(row, values=_label_studio(values))
    elif isinstance(values.get("paragraphs"), list):
        yield from (replace(row, values=found) for found in _spacy(values["paragraphs"]))
    elif _is_cluener(values):
        yield replace(row, values=_cluener(values))
    elif isinstance(values.get("relations"), list):
        yield replace(row, values={**values, "relations": _relations(values)})
    else:
        yield row


# -- Label Studio ----------------------------------------------------------------------------------


def _label_studio(values: Values) -> Values:
    """The text of a task and the first of its annotations that was not cancelled."""
    data = values["data"]
    texts = {name: text for name, text in data.items() if isinstance(text, str)}
    name = next((name for name in (*TEXTS, *texts) if name in texts), None)
    if name is None:
        raise Flaw("missing field", "`data` holds no text")
    found: Values = {n: v for n, v in values.items() if n not in ("data", "annotations")}
    found |= {n: v for n, v in data.items() if n != name} | {"text": data[name]}
    given = [one for one in values["annotations"] if isinstance(one, Mapping)]
    kept = next((one for one in given if not one.get("was_cancelled")), None)
    if kept is None:
        return found
    results = [one for one in kept.get("result") or () if isinstance(one, Mapping)]
    found["entities"] = [
        {**one["value"], "label": label, "id": one.get("id")}
        for one in results
        if one.get("type") in ("labels", "hypertextlabels")
        for label in one["value"].get(one["type"]) or one["value"].get("labels") or ()
    ]
    linked = [one for one in results if one.get("type") == "relation"]
    if linked:
        found["relations"] = [_link(one, name) for one in linked for name in _names(one)]
    return found


def _names(link: Mapping[str, Any]) -> Sequence[str]:
    names = link.get("labels")
    if not names:
        raise Flaw("wrong type", f"a relation needs a name: {link}")
    return list(names)


def _link(link: Mapping[str, Any], name: str) -> Values:
    ends = link.get("from_id"), link.get("to_id")
    head, tail = reversed(ends) if link.get("direction") == "left" else ends
    return {"head": head, "tail": tail, "type": name}


# -- CLUENER ---------------------------------------------------------------------------------------


def _is_cluener(values: Values) -> bool:
    """Whether `label` tells of each type the words and their places."""
    marked = values.get("label")
    return isinstance(marked, Mapping) and all(
        isinstance(named, Mapping) and all(isinstance(places, list) for places in named.values())
        for named in marked.values()
    )


def _cluener(values: Values) -> Values:
    entities = [
        {"label": label, "start": first, "end": last + 1, "text": words}
        for label, named in values["label"].items()
        for words, places in named.items()
        for first, last in places
    ]
    return {n: v for n, v in values.items() if n != "label"} | {"entities": entities}


# -- doccano, Prodigy ------------------------------------------------------------------------------


def _relations(values: Values) -> list[Any]:
    """Relations whose ends are known by number or id, or by their own places."""
    entities = values.get("entities")
    numbers = {
        one["id"]: number
        for number, one in enumerate(entities if isinstance(entities, list) else ())
        if isinstance(one, Mapping) and isinstance(one.get("id"), int | str)
    }
    return [_relation(one, numbers) for one in values["relations"]]


def _relation(given: Any, numbers: Mapping[Any, int]) -> Any:
    if isinstance(given, Mapping) and {"from_id", "to_id"} <= given.keys():
        unknown = [given[end] for end in ("from_id", "to_id") if given[end] not in numbers]
        if unknown:
            raise Flaw("unknown entity", f"a relation speaks of {unknown[0]!r}, which no entity is")
        head, tail = numbers[given["from_id"]], numbers[given["to_id"]]
        return {"head": head, "tail": tail, "type": given.get("type", given.get("label"))}
    if isinstance(given, Mapping) and {"head_span", "child_span"} <= given.keys():
        head, tail = given["head_span"], given["child_span"]
        return {"head": head, "tail": tail, "type": given.get("label")}
    return given


# -- spaCy 2 ---------------------------------------------------------------------------------------


def _spacy(paragraphs: Sequence[Any]) -> Iterator[Values]:
    for paragraph in paragraphs:
        for sentence in (isinstance(paragraph, Mapping) and paragraph.get("sentences")) or ():
            tokens = sentence.get("tokens") or ()
            words = [token.get("orth") for token in tokens]
            yield {"tokens": words, "tags": [token.get("ner") or "O" for token in tokens]}
