"""Questions about texts: nested files as one row a question, and answers put in their places.

    {"data": [{"title": …, "paragraphs": [{"context": …, "qas": [{"id": …, "question": …,
        "answers": [{"text": …, "answer_start": …}], "is_impossible": false}]}]}]}

is SQuAD's layout (Rajpurkar et al., 2016 and 2018), also that of DRCD; CMRC 2018 was first
published without paragraphs and with other names (`context_text`, `query_text`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mainspring.data.kinds import Flaw, whole
from mainspring.data.rows import Row

ANSWER_COLUMNS = ("answers", "answer", "answer_text", "target", "output")
CONTEXTS, QUESTIONS, IDS = (
    ("context", "context_text"),
    ("question", "query_text"),
    ("id", "query_id"),
)
FALSE = (None, False, 0, "", "0", "false", "False", "no")

# How far from its stated start an answer is looked for that occurs more than once, in characters.
NEARBY = 100

Values = dict[str, Any]


def questions(row: Row) -> Iterator[Row]:
    """The questions that a row holds: itself, or those of its paragraphs.

    A part that is not what it should be becomes a row in which something is missing, so that it is
    counted like any other. A question that is marked as impossible gets no answers.
    """
    values = row.values
    if "paragraphs" not in values and "qas" not in values:
        yield _with(row, _impossible(values))
        return
    whole = values.get("paragraphs", [values])
    about = {"title": values["title"]} if "title" in values else {}
    for paragraph in whole if isinstance(whole, list) else [whole]:
        if not isinstance(paragraph, dict):
            yield _with(row, {**about, "paragraph": paragraph, "context": None, "question": None})
            continue
        asked = paragraph.get("qas")
        for entry in asked if isinstance(asked, list) else [asked]:
            yield _with(row, _question(entry, paragraph, about))


def _with(row: Row, values: Values) -> Row:
    return Row(values, row.file, row.line)


def _question(entry: Any, paragraph: Values, about: Values) -> Values:
    """One question in the flat layout, its id first, so that it can be found again."""
    found = entry if isinstance(entry, dict) else {}
    flat = {"id": _first(found, IDS)} if _first(found, IDS) is not None else {}
    flat |= {**about, "context": _first(paragraph, CONTEXTS), "question": _first(found, QUESTIONS)}
    if "answers" in found:
        flat["answers"] = found["answers"]
    for name in ("is_impossible", "plausible_answers"):
        if name in found:
            flat[name] = found[name]
    return _impossible(flat)


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if name in values), None)


def _impossible(values: Values) -> Values:
    """A row that says its question cannot be answered has no answers, whatever stands there."""
    if values.get("is_impossible") in FALSE:
        return values
    stated = [name for name in values if name.strip().casefold() in ANSWER_COLUMNS]
    return {**values, **{name: [] for name in stated or ["answers"]}}


# -- answers in their places -----------------------------------------------------------------------


def in_place(values: Values) -> Values:
    """A row whose answers stand where they say in its context.

    What was put right or could not be placed is listed under "mended" (see `schema.examples`):
    an answer that occurs once, or once near its stated start, is moved there; any other that is not
    at its start loses the start (None), and can be compared with but not learnt as a span. Where no
    start is given, the first of several places is taken.
    """
    start = values.pop("start", None)
    if "answers" not in values:
        return values
    answers = values["answers"]
    if len(answers) == 1 and answers[0]["start"] is None and start not in (None, ""):
        at = whole(start)
        if at is None:
            raise Flaw("wrong type", f"the answer's start {start!r} is no whole number")
        answers = [{**answers[0], "start": at}]
    mended: list[Flaw] = []
    placed = [_placed(values["context"], answer, mended) for answer in answers]
    return {**values, "answers": placed, "mended": mended}


def _placed(context: str, answer: Values, mended: list[Flaw]) -> Values:
    text, start = answer["text"].strip(), answer["start"]
    if start is not None:
        start += len(answer["text"]) - len(answer["text"].lstrip())
        if start >= 0 and context.startswith(text, start):
            return {"text": text, "start": start}
    places = [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
    near = places if start is None else [at for at in places if abs(at - start) <= NEARBY]
    if len(places) == 1 or len(near) == 1:
        at = near[0] if len(near) == 1 else places[0]
        if start is not None:
            mended.append(Flaw("answer start repaired", f"{text!r}: {start} → {at}"))
        return {"text": text, "start": at}
    if not places:
        mended.append(Flaw("answer not in the context", repr(text)))
    elif start is None:
        mended.append(Flaw("answer in several places, the first taken", repr(text)))
        return {"text": text, "start": places[0]}
    else:
        mended.append(Flaw("answer not at its start, and in several places", f"{text!r}: {start}"))
    return {"text": text, "start": None}
