"""Answers in words: prompts, windows over long texts, which window's answer counts and where."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import nano
from answering import rows as made_rows
from mainspring.checkpoints.bundle import Bundle, new_bundle
from mainspring.formulations import Inference, Limits, Prediction, Setup, sequence_to_sequence
from mainspring.formulations.generated_answers import (
    CAUSAL,
    SEQUENCE_TO_SEQUENCE,
    UNANSWERABLE,
    answering,
    pose,
    read,
)
from mainspring.formulations.prediction import generation_options

SETUP = Setup(Limits(64, 6))
LONG = " ".join(row["context"] for row in made_rows(30, seed=5))


def test_a_row_becomes_a_prompt_and_its_first_answer() -> None:
    row = {"question": " Where? ", "context": "Here. ", "answers": [{"text": "Here", "start": 0}]}
    assert pose(row, SETUP) == {"text": "question: Where? context: Here.", "target": "Here"}
    assert pose({**row, "answers": []}, SETUP)["target"] == UNANSWERABLE
    assert "target" not in pose({"question": "q", "context": "c"}, SETUP)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" copper ", "copper"),
        ("Unanswerable.", ""),
        ("unanswerable questions", "unanswerable questions"),
    ],
)
def test_what_is_written_is_read_back(written: str, answer: str) -> None:
    assert read(written, {}, SETUP) == answer


def told(answers: dict[str, str], seen: list[str]) -> Any:
    """A formulation that says what is told for the first key that its text holds."""

    def predict(
        bundle: Bundle, rows: Any, setup: Setup, how: Inference, on_done: Any, on_text: Any
    ) -> Iterator[Prediction]:
        for row in rows:
            seen.append(row["text"])
            found = next((answers[key] for key in answers if key in row["text"]), UNANSWERABLE)
            yield Prediction(found, stop="eos", tokens=1, source_tokens=10)

    return answering(replace(sequence_to_sequence.FORMULATION, predict=predict))


def asked(formulation: Any, rows: list[dict], **how: Any) -> list[Prediction]:
    return list(formulation.predict(nano.bundle(), iter(rows), SETUP, Inference(**how)))


def test_every_window_holds_the_question_and_together_they_are_the_text() -> None:
    seen: list[str] = []
    row = {"question": "Where is the river?", "context": LONG}
    [found] = asked(told({}, seen), [row])
    assert len(seen) > 5 and all(text.startswith("question: Where is") for text in seen)
    parts = [text.partition(" context: ")[2] for text in seen]
    assert " ".join(parts) == LONG
    assert all(len(nano.tokenizer().encode(text)) <= 64 for text in seen)
    assert found.value == "" and found.windows == len(seen)
    assert found.details == {"start": None, "end": None}


def test_an_answer_that_stands_in_its_window_comes_before_one_that_does_not() -> None:
    place = LONG.index("is in ") + len("is in ")
    word = LONG[place:].split(".")[0]
    wrong = {LONG[-30:]: "gold", LONG[place - 10 : place + 5]: word.upper()}
    [found] = asked(told(wrong, []), [{"question": "Where?", "context": LONG}])
    assert found.value == word.upper()
    assert LONG[found.details["start"] : found.details["end"]] == word
    [free] = asked(told({"The": "gold"}, []), [{"question": "Where?", "context": LONG}])
    assert free.value == "gold" and free.details["start"] is None


def test_order_is_kept_over_rows_of_many_windows() -> None:
    rows = [
        {"question": "Where?", "context": context}
        for context in ("One is here. ", LONG, "Two is there.")
    ]
    found = asked(told({"One": "here", "Two": "there"}, []), rows, chunk=2)
    assert [answer.value for answer in found] == ["here", "", "there"]
    assert found[0].windows == found[2].windows == 1 < found[1].windows


@pytest.mark.parametrize("formulation", [SEQUENCE_TO_SEQUENCE, CAUSAL])
def test_models_of_both_kinds_answer_long_texts(formulation: Any) -> None:
    bundle = nano.bundle()
    if formulation is CAUSAL:
        bundle = new_bundle("llama-tiny", nano.tokenizer(), 0)
    options = generation_options(bundle.generation, SETUP.limits, {"max_new_tokens": 3})
    rows = [
        {"question": "Where is the river?", "context": LONG[:600]},
        {"question": "Where?", "context": "In silver."},
    ]
    found = list(formulation.predict(bundle, iter(rows), SETUP, Inference(options)))
    assert [f.windows > 1 for f in found] == [True, False]
    assert all(f.source_tokens_unread == 0 for f in found)
    told_pieces: list[str] = []
    list(
        formulation.predict(
            bundle, iter(rows[1:]), SETUP, Inference(options), lambda n: None, told_pieces.append
        )
    )
    assert "".join(told_pieces).strip() == found[1].value or not found[1].value
