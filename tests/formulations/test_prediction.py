from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import nano
from mainspring.checkpoints.bundle import Bundle
from mainspring.errors import Mismatch
from mainspring.formulations import Inference, Limits, Prediction, Setup, prediction
from mainspring.formulations import sequence_to_sequence as pairs
from mainspring.formulations.prediction import generation_options, write

LIMITS = Limits(32, 10)


def predict(
    bundle: Bundle, texts: Iterable[str], how: Inference, *told: Any, prefix: str = ""
) -> Iterator[Prediction]:
    return pairs.predict(bundle, ({"text": t} for t in texts), Setup(LIMITS, prefix), how, *told)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return nano.bundle(seed=2)


@pytest.fixture(scope="module")
def settings(bundle: Bundle) -> Inference:
    return Inference(generation_options(bundle.generation, LIMITS, {}))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Short and long ones in turn."""
    rows = nano.pairs(20, seed=5)
    return [row["article" if n % 3 else "summary"] for n, row in enumerate(rows)]


def test_the_order_of_the_texts_is_kept_and_company_changes_nothing(
    bundle: Bundle, settings: Inference, texts: list[str]
) -> None:
    together = list(predict(bundle, texts, settings))
    alone = [next(predict(bundle, [text], settings)) for text in texts]
    assert together == alone
    small = replace(settings, tokens=64, chunk=3)
    assert list(predict(bundle, texts, small)) == alone


def test_a_batch_stays_within_the_budget_beams_included(
    bundle: Bundle, settings: Inference, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []
    real = prediction.generate

    def generate(model: Any, ids: torch.Tensor, *rest: Any, **options: Any) -> Any:
        shapes.append((ids.shape[0], ids.shape[1]))
        return real(model, ids, *rest, **options)

    monkeypatch.setattr(prediction, "generate", generate)
    options = generation_options(bundle.generation, LIMITS, {"num_beams": 2})
    list(predict(bundle, texts, replace(settings, options=options, tokens=256)))
    assert max(rows for rows, _ in shapes) > 1
    assert all(rows * width * 2 <= 256 for rows, width in shapes if rows > 1)
    widths = [width for _, width in shapes]
    assert widths == sorted(widths, reverse=True)  # the longest first: memory peaks at once


def test_texts_stream_through_chunk_by_chunk(bundle: Bundle, settings: Inference) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "Quiet river."

    answers = predict(bundle, endless(), replace(settings, chunk=4))
    for _ in range(6):
        next(answers)
    assert read == 8


def test_work_done_is_told_after_each_batch(
    bundle: Bundle, settings: Inference, texts: list[str]
) -> None:
    done: list[int] = []
    list(predict(bundle, texts, replace(settings, tokens=128), done.append))
    assert done[-1] == len(texts)
    assert done == sorted(done) and len(done) > 2


def test_the_prefix_stands_before_every_window(bundle: Bundle, settings: Inference) -> None:
    text = " ".join(row["article"] for row in nano.pairs(3, seed=9))
    [answer] = predict(bundle, [text], settings, prefix="early early early ")
    [plain] = predict(bundle, [text], settings)
    assert answer.windows > plain.windows > 1
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    assert answer.source_tokens == len(tokenizer.encode("early early early " + text))


def test_a_chunk_is_asked_once_what_stands_behind_every_text(
    bundle: Bundle, settings: Inference, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    asked: list[list[str]] = []
    read: list[list[int]] = []

    def encode(some: Sequence[str]) -> list[list[int]]:
        asked.append(list(some))
        return tokenizer.encode_many(some)

    def answer(bundle: Bundle, batch: list[Any], *rest: Any) -> None:
        read.extend(piece.ids for piece in batch)

    monkeypatch.setattr(prediction, "_answer", answer)
    long = [" ".join(texts[n:]) for n in range(4)]
    cutting = replace(settings, on_long="cut", chunk=3)
    found = list(write(bundle, ["short", *long], Setup(LIMITS), cutting, encode))
    assert asked == [["short", *long[:2]], ["", "x"], long[2:], ["", "x"]]
    for text, answered in zip(long, found[1:], strict=True):
        ids = tokenizer.encode(text)
        assert [*ids[: LIMITS.source - 1], tokenizer.eos_id] in read
        assert answered.source_tokens_unread == len(ids) - LIMITS.source
    asked.clear()
    list(write(bundle, ["short"], Setup(LIMITS), cutting, encode))
    assert asked == [["short"]]


def test_nothing_is_asked_for_an_empty_list(bundle: Bundle, settings: Inference) -> None:
    assert list(predict(bundle, [], settings)) == []


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        ({}, {}, 10),
        ({"max_length": 200}, {}, 10),
        ({"max_new_tokens": 200}, {}, 10),
        ({"max_new_tokens": 200}, {"max_new_tokens": 7}, 7),
        ({"num_beams": 4}, {"max_new_tokens": None}, 10),
    ],
)
def test_the_length_limit_is_the_tasks_unless_given(
    config: dict[str, Any], given: dict[str, Any], expected: int
) -> None:
    options = generation_options(config, LIMITS, given)
    assert options.limits(1)[0] == 1 + expected
    assert options.num_beams == config.get("num_beams", 1)


def test_the_best_of_several_sequences_is_the_answer(
    bundle: Bundle, settings: Inference, texts: list[str]
) -> None:
    def answers(**given: Any) -> list[str]:
        options = generation_options(bundle.generation, LIMITS, {"num_beams": 3, **given})
        return [p.value for p in predict(bundle, texts[:3], replace(settings, options=options))]

    assert answers(num_return_sequences=3) == answers()


def test_without_a_tokenizer_there_is_nothing_to_read(bundle: Bundle, settings: Inference) -> None:
    with pytest.raises(Mismatch, match="no tokenizer"):
        list(predict(replace(bundle, tokenizer=None), ["text"], settings))


def test_an_answer_can_be_heard_as_it_is_written(
    bundle: Bundle, settings: Inference, texts: list[str]
) -> None:
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    special = tuple(i for i in range(192) if not tokenizer.decode([i]).strip())
    options = generation_options(bundle.generation, LIMITS, {"suppress_tokens": special})
    how = replace(settings, options=options)
    silent = [p.value for p in predict(bundle, texts[:4], how)]
    for text, expected in zip(texts, silent, strict=False):
        heard: list[str] = []
        [answer] = predict(bundle, [text], how, lambda done: None, heard.append)
        assert answer.value == expected == "".join(heard).strip()
        assert len(heard) > 4
