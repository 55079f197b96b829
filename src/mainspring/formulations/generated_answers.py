"""A question is answered in words: an encoder-decoder or a decoder reads question and text.

    question: Who …? context: window of the text        the layout of Raffel et al. (2020)

A text that does not fit is read in windows that end at sentences, the question before each. The
answer is that of the window in which it stands word for word, windows that share most words with
the question first; "unanswerable" is what a model says and learns where there is no answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from mainspring.checkpoints.bundle import Bundle
from mainspring.data.windows import text_windows
from mainspring.formulations import (
    Formulation,
    Inference,
    OnDone,
    Prediction,
    Setup,
    Values,
    causal,
    posed,
    sequence_to_sequence,
)
from mainspring.formulations.inputs import in_chunks
from mainspring.formulations.prediction import OnText, tokenizer_of
from mainspring.text import words

UNANSWERABLE = "unanswerable"


def pose(row: Values, setup: Setup) -> Values:
    """A row in the terms of the formulations that write."""
    del setup
    posed_row = {"text": prompt(row["question"], row["context"])}
    if "answers" in row:
        first = row["answers"][0]["text"] if row["answers"] else UNANSWERABLE
        posed_row["target"] = first
    return posed_row


def prompt(question: str, context: str) -> str:
    return f"question: {question.strip()} context: {context.strip()}"


def read(answer: Any, row: Values, setup: Setup) -> str:
    """What was written, "" where it says that there is no answer."""
    del row, setup
    text = str(answer).strip()
    return "" if text.strip(" .").lower() == UNANSWERABLE else text


def answering(formulation: Formulation) -> Formulation:
    """A formulation that writes, for questions about texts of any length."""
    one = posed(formulation, pose, read)

    def predict(
        bundle: Bundle,
        rows: Iterable[Values],
        setup: Setup,
        how: Inference,
        on_done: OnDone = lambda done: None,
        on_text: OnText | None = None,
    ) -> Iterator[Prediction]:
        assert one.predict is not None
        done = 0
        for chunk in in_chunks(rows, 1 if on_text is not None else how.chunk):
            parts = [_windows(row, bundle, setup, how) for row in chunk]
            asked = [part for row_parts in parts for part in row_parts]
            # Each window fits, so it is read whole; what is refused or cut is so row by row.
            made = one.predict(bundle, asked, setup, how, lambda _: None, _only(on_text, asked))
            for row, row_parts in zip(chunk, parts, strict=True):
                answers = list(islice(made, len(row_parts)))
                done += 1
                on_done(done)
                yield _best(row, row_parts, answers)

    return replace(one, predict=predict)


def _only(on_text: OnText | None, asked: Sequence[Values]) -> OnText | None:
    """Text is told as it is written where one window alone is read."""
    return on_text if len(asked) == 1 else None


def _windows(row: Values, bundle: Bundle, setup: Setup, how: Inference) -> list[Values]:
    """The row, once for each window of its context that fits beside the question."""
    if how.on_long != "split":
        return [{**row, "start": 0}]
    tokenizer = tokenizer_of(bundle)
    question, context = row["question"], row["context"]

    def count(texts: Sequence[str]) -> list[int]:
        whole = [f"{setup.prefix}{prompt(question, text)}{setup.suffix}" for text in texts]
        return [len(ids) for ids in tokenizer.encode_many(whole)]

    # A chat template sets some tokens around; a question may be long by itself.
    room = setup.limits.source - _around(bundle, setup)
    limit = max(room, count([""])[0] + setup.limits.source // 4)
    spans = text_windows(context, count, limit)
    return [{**row, "context": context[a:b], "start": a} for a, b in spans]


def _around(bundle: Bundle, setup: Setup) -> int:
    """Tokens that a chat template sets around a prompt."""
    tokenizer = tokenizer_of(bundle)
    if bundle.spec.encoder is not None or tokenizer.chat_template is None:
        return 0
    [ids] = causal.text_ids([""], tokenizer, replace(setup, prefix=""))
    return len(ids)


def _best(row: Values, parts: Sequence[Values], answers: Sequence[Prediction]) -> Prediction:
    """One of the windows' answers, with its place in the whole text where it stands there."""
    asked = set(words(row["question"]))

    def rank(number: int) -> tuple[bool, bool, int]:
        text, part = answers[number].value, parts[number]["context"]
        shared = len(asked & set(words(part)))
        return bool(text), bool(text) and text.casefold() in part.casefold(), shared

    number = max(range(len(answers)), key=rank)
    best, part = answers[number], parts[number]
    at = part["context"].casefold().find(best.value.casefold()) if best.value else -1
    same_length = len(part["context"].casefold()) == len(part["context"])
    start = part["start"] + at if at >= 0 and same_length else None
    end = None if start is None else start + len(best.value)
    return replace(
        best,
        source_tokens=sum(answer.source_tokens for answer in answers),
        source_tokens_unread=sum(answer.source_tokens_unread for answer in answers),
        windows=sum(answer.windows for answer in answers),
        details={"start": start, "end": end},
    )


SEQUENCE_TO_SEQUENCE = answering(sequence_to_sequence.FORMULATION)
CAUSAL = answering(causal.FORMULATION)
