"""Extractive answers: the loss and logits of transformers' own model, the decoding that its
examples publish, and exact places in the original text."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from answering import rows as made_rows
from answering import tokenizer as their_tokenizer
from answering import write_reader
from mainspring import events
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.data.kinds import KINDS
from mainspring.data.questions import in_place
from mainspring.errors import BadOption
from mainspring.formulations import Inference, Limits, Setup, span_extraction, special_ids
from mainspring.formulations.pairs import pair_layout, pair_up
from mainspring.formulations.span_examples import collate, encode, logits, losses, token_span
from mainspring.formulations.span_extraction import (
    FORMULATION,
    Reading,
    calibrate,
    learn,
    predict,
    prediction,
    read,
)
from mainspring.formulations.spans import best_threshold, merged, window_candidates

lean = settings(max_examples=40, deadline=None, derandomize=True, database=None)

LONG = " ".join(row["context"] for row in made_rows(40, seed=7))
SETUP = Setup(Limits(48, 8), options={"stride": 12})


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bundle]:
    folder = tmp_path_factory.mktemp("reader")
    return write_reader(folder), load(folder)


def answers(bundle: Bundle, rows: list[dict], setup: Setup = SETUP, **how: Any) -> list[Any]:
    return list(predict(bundle, iter(rows), setup, Inference(**how)))


# -- transformers' model ---------------------------------------------------------------------------


def test_windows_are_those_of_transformers(reader) -> None:
    _, bundle = reader
    row = {"question": "Where is the river?", "context": LONG}
    theirs = their_tokenizer()(
        row["question"],
        row["context"],
        truncation="only_second",
        max_length=48,
        stride=12,
        return_overflowing_tokens=True,
    )
    [pair] = pair_up([row], bundle.tokenizer, SETUP)
    assert [window.ids for window in pair.windows(12)] == theirs["input_ids"]
    assert len(pair.windows(12)) > 5
    for window, types in zip(pair.windows(12), theirs["token_type_ids"], strict=True):
        assert types.index(1) == window.second


def test_loss_and_logits_are_those_of_transformers(reader) -> None:
    theirs, bundle = reader
    rows = [*made_rows(4), {**made_rows(1)[0], "answers": [], "question": "Who?"}]
    examples = encode(rows, bundle.tokenizer, SETUP)
    ids = special_ids(bundle.tokenizer, bundle.config, bundle.spec)
    batch = collate(examples, ids, 0, 1)
    with torch.no_grad():
        ours, nats = logits(bundle.model, batch), losses(bundle.model, batch)
        mask = batch.keep_BS if batch.keep_BS is not None else torch.ones_like(batch.source_BS)
        made = theirs(batch.source_BS, mask.long(), batch.types_BS)
        alone = [
            theirs(
                torch.tensor([example.source]),
                token_type_ids=batch.types_BS[n : n + 1, : len(example.source)],
                start_positions=torch.tensor([example.target[0]]),
                end_positions=torch.tensor([example.target[1]]),
            )
            for n, example in enumerate(examples)
        ]
    for n, example in enumerate(examples):
        size = len(example.source)
        assert torch.allclose(ours[n, :size, 0], made.start_logits[n, :size], atol=1e-5)
        assert torch.allclose(ours[n, :size, 1], made.end_logits[n, :size], atol=1e-5)
        # Theirs is the mean of start and end, ours their sum.
        assert math.isclose(nats[n], 2 * float(alone[n].loss), abs_tol=1e-4, rel_tol=1e-5)
    assert batch.target_tokens == 2 * len(examples)


def test_the_answer_is_learnt_in_the_windows_that_hold_it_and_the_first_token_elsewhere(
    reader,
) -> None:
    _, bundle = reader
    start = LONG.index("station", len(LONG) // 2) if "station" in LONG[len(LONG) // 2 :] else 400
    text = LONG[start:].split()[0].strip(".")
    row = {"question": "Where?", "context": LONG, "answers": [{"text": text, "start": start}]}
    examples = encode([row], bundle.tokenizer, SETUP)
    [pair] = pair_up([row], bundle.tokenizer, SETUP)
    held = 0
    for example, window in zip(examples, pair.windows(12), strict=True):
        first, last = example.target
        places = pair.places[window.first : window.first + window.tokens]
        inside = places[0, 0] <= start and start + len(text) <= places[-1, 1]
        assert (first > 0) == inside
        if inside:
            held += 1
            characters = places[first - window.second, 0], places[last - window.second, 1]
            assert characters == (start, start + len(text))
    assert 1 <= held <= 2


def test_rows_without_a_known_place_are_not_learnt(reader) -> None:
    _, bundle = reader
    row = made_rows(1)[0]
    lost = {**row, "answers": [{"text": "gold", "start": None}]}
    assert encode([lost], bundle.tokenizer, SETUP) == []
    second = {**row, "answers": [lost["answers"][0], row["answers"][0]]}
    assert encode([second], bundle.tokenizer, SETUP) == encode([row], bundle.tokenizer, SETUP)


# -- decoding --------------------------------------------------------------------------------------


def published(windows: list[dict], context: str, *, none: bool, threshold: float = 0.0) -> dict:
    """The decoding published with transformers' examples, written from its description: the best 20
    starts with the best 20 ends of every window, as pairs that lie in the context, in order and not
    too long; all windows' pairs together, the 20 best of them; no answer where the smallest null
    score of the windows exceeds the best pair's by more than the threshold."""
    pairs, null = [], None
    for window in windows:
        start, end, offsets = window["start"], window["end"], window["offsets"]
        score = start[0] + end[0]
        null = score if null is None or score < null else null
        for s in np.argsort(start)[-1:-21:-1].tolist():
            for e in np.argsort(end)[-1:-21:-1].tolist():
                if offsets[s] is None or offsets[e] is None or e < s or e - s + 1 > 30:
                    continue
                pairs.append((float(start[s] + end[e]), offsets[s][0], offsets[e][1]))
    pairs = sorted(pairs, key=lambda pair: pair[0], reverse=True)[:20]
    scores = np.array([pair[0] for pair in pairs] + ([float(null)] if none else []))
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    best, a, b = pairs[0]
    text = "" if none and null - best > threshold else context[a:b]
    return {"text": text, "share": shares[0], "margin": float(null) - best, "best": context[a:b]}


@pytest.mark.parametrize("none", [False, True])
def test_the_published_decoding_on_the_same_logits(reader, none: bool) -> None:
    theirs, bundle = reader
    rows = [{**row, "context": row["context"] * (1 + i % 4)} for i, row in enumerate(made_rows(12))]
    rows += [{"question": "Where is the winter?", "context": LONG}]
    setup = replace(SETUP, options={"stride": 12, **({"no_answer_threshold": 0.5} if none else {})})
    silent = 0
    for row, found in zip(rows, answers(bundle, rows, setup), strict=True):
        made = their_tokenizer()(
            row["question"],
            row["context"],
            truncation="only_second",
            max_length=48,
            stride=12,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows = []
        for n, ids in enumerate(made["input_ids"]):
            with torch.no_grad():
                out = theirs(
                    torch.tensor([ids]), token_type_ids=torch.tensor([made["token_type_ids"][n]])
                )
            sides = made.sequence_ids(n)
            offsets = [
                place if side == 1 else None
                for place, side in zip(made["offset_mapping"][n], sides, strict=True)
            ]
            start, end = out.start_logits[0].numpy(), out.end_logits[0].numpy()
            windows.append({"start": start, "end": end, "offsets": offsets})
        wanted = published(windows, row["context"], none=none, threshold=0.5)
        assert found.value == wanted["text"]
        assert found.windows == len(windows) and found.source_tokens_unread == 0
        if none:
            assert found.details["no_answer_margin"] == pytest.approx(wanted["margin"], abs=1e-3)
        if found.value:
            assert found.details["score"] == pytest.approx(wanted["share"], abs=1e-4)
            place = slice(found.details["start"], found.details["end"])
            assert row["context"][place] == found.value
        silent += not found.value
    assert silent == 0 or none


numbers = st.floats(-8, 8, width=32)


@given(
    st.lists(st.tuples(numbers, numbers), min_size=4, max_size=40),
    st.integers(0, 6),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(0, 100),
)
@lean
def test_candidates_are_spans_in_order_within_the_window(
    pairs: list[tuple[float, float]], second: int, longest: int, keep: int, first: int
) -> None:
    start, end = np.array(pairs, dtype=np.float32).T
    tokens = max(0, len(pairs) - second - 1)
    found = window_candidates(start, end, second, tokens, first, longest, keep)
    assert len(found) <= keep
    assert [c.logit for c in found] == sorted((c.logit for c in found), reverse=True)
    for candidate in found:
        assert first <= candidate.first <= candidate.last < first + tokens
        assert candidate.last - candidate.first < longest
        s, e = candidate.first - first + second, candidate.last - first + second
        assert candidate.logit == float(start[s] + end[e])
    every = [
        float(start[s] + end[e])
        for s in range(second, second + tokens)
        for e in range(s, min(s + longest, second + tokens))
    ]
    assert [c.logit for c in found] == sorted(every, reverse=True)[:keep]


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([-1, 0, 1])), max_size=12))
@lean
def test_no_threshold_is_better_than_the_best(rows: list[tuple[int, int]]) -> None:
    margins = [float(margin) for margin, _ in rows]
    gains = [float(gain) for _, gain in rows]

    def total(threshold: float) -> float:
        return sum(g for m, g in zip(margins, gains, strict=True) if not m > threshold)

    best = total(best_threshold(margins, gains))
    assert all(best >= total(other / 2) for other in range(-10, 11))


# -- places ----------------------------------------------------------------------------------------


@given(st.text(alphabet="北京大学abc 😀é.,\n", max_size=30), st.data())
@lean
def test_the_tokens_of_a_span_give_its_characters_back(text: str, data: st.DataObject) -> None:
    """Every run of whole tokens is found again from its characters."""
    [(_, offsets)] = [
        (e.ids, e.offsets)
        for e in their_tokenizer().backend_tokenizer.encode_batch([text], add_special_tokens=False)
    ]
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    if not len(places):
        assert token_span(places, 0, 1) is None
        return
    first = data.draw(st.integers(0, len(places) - 1))
    last = data.draw(st.integers(first, len(places) - 1))
    start, end = int(places[first, 0]), int(places[last, 1])
    assert token_span(places, start, end) == (first, last)
    reading = Reading(merged([([], 0.0)], 1), places, 0, 0, 1)
    from mainspring.formulations.spans import Candidate

    a, b = reading.characters(Candidate(first, last, 0.0), text)
    assert text[a:b] == text[start:end].strip()


def test_places_are_exact_in_chinese_and_with_emoji(reader) -> None:
    _, bundle = reader
    contexts = [
        "北京大学建于1898年，是中国的大学。😀在北京。" * 3,
        "😀😀 the café, in é-river 😀 " * 4,
    ]
    for context in contexts:
        [found] = answers(bundle, [{"question": "什么时候？", "context": context}])
        assert found.value == context[found.details["start"] : found.details["end"]] != ""


def test_byte_tokens_that_share_a_character_stay_together() -> None:
    places = np.array([(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)])
    assert token_span(places, 1, 2) == (1, 3)
    assert token_span(places, 0, 3) == (0, 4)
    assert token_span(places, 3, 4) is None


def test_what_is_trained_is_what_comes_back(reader) -> None:
    """The labels of each window, read as logits, give the answer's own characters."""
    _, bundle = reader
    for row in made_rows(20, seed=3):
        examples = encode([row], bundle.tokenizer, SETUP)
        [pair] = pair_up([row], bundle.tokenizer, SETUP)
        parts = []
        for example, window in zip(examples, pair.windows(12), strict=True):
            start, end = np.zeros((2, len(example.source)), dtype=np.float32)
            start[example.target[0]] = end[example.target[1]] = 9
            found = window_candidates(
                start, end, window.second, window.tokens, window.first, 30, 20
            )
            parts.append((found, float(start[0] + end[0])))
        reading = Reading(merged(parts, 20), pair.places, 0, 0, len(parts))
        assert prediction(reading, row["context"], SETUP).value == row["answers"][0]["text"]


# -- long and odd inputs ---------------------------------------------------------------------------


def test_long_texts_may_be_cut_or_refused(reader) -> None:
    _, bundle = reader
    row = {"question": "Where is the river?", "context": LONG}
    [whole] = answers(bundle, [row])
    [cut] = answers(bundle, [row], on_long="cut")
    [refused] = answers(bundle, [row], on_long="refuse")
    assert whole.windows > 5 and whole.source_tokens_unread == 0
    assert cut.windows == 1 and 0 < cut.source_tokens_unread < cut.source_tokens
    assert refused.error is not None and "the model reads 48" in refused.error
    assert refused.value == "" and refused.stop == "refused"


def test_order_is_kept_and_batches_change_nothing(reader) -> None:
    _, bundle = reader
    rows = [*made_rows(9), {"question": "Where?", "context": LONG}, *made_rows(5, seed=1)]
    told: list[int] = []
    once = list(predict(bundle, iter(rows), SETUP, Inference(), told.append))
    small = answers(bundle, rows, tokens=100, chunk=4)
    alone = [answers(bundle, [row])[0] for row in rows]
    assert [a.value for a in once] == [a.value for a in small] == [a.value for a in alone]
    assert [a.windows for a in once] == [a.windows for a in alone]
    assert told[-1] == len(rows)


def test_empty_questions_and_contexts_of_nothing(reader) -> None:
    _, bundle = reader
    odd = [{"question": "", "context": "\u200b"}, {"question": "Who?", "context": "   "}]
    for found in answers(bundle, odd):
        assert found.value == "" and found.details["start"] is None


def test_a_question_longer_than_half_a_window_is_cut_and_counted(reader) -> None:
    _, bundle = reader
    row = {"question": "Where is the river? " * 30, "context": LONG}
    [found] = answers(bundle, [row])
    assert found.source_tokens_unread > 100 and found.value in LONG
    [example, *_] = encode([{**row, "answers": []}], bundle.tokenizer, SETUP)
    assert example.source_lost == found.source_tokens_unread
    with pytest.raises(BadOption, match="leaves no room"):
        answers(bundle, [row], Setup(Limits(6, 8)))


def test_what_is_read_is_the_best_of_all_windows(reader) -> None:
    """As if all windows were made, read and compared at once; how far they are is told."""
    _, bundle = reader
    rows = [*made_rows(8, seed=5), {"question": "Where?", "context": LONG * 3}]
    for how in (Inference(tokens=200), Inference(tokens=200, chunk=1)):
        said: list[events.Event] = []
        done: list[int] = []
        with events.listening(said.append):
            found = list(span_extraction.read(bundle, iter(rows), SETUP, how, done.append))
        for row, reading in zip(rows, found, strict=True):
            [pair] = pair_up([row], bundle.tokenizer, SETUP)
            windows = pair.windows(12)
            parts = span_extraction._point(bundle, windows, SETUP, 20)
            expected = merged(list(parts), 20)
            assert [c.logit for c in reading.found.candidates] == pytest.approx(
                [c.logit for c in expected.candidates], abs=1e-4
            )
            assert reading.found.no_answer == pytest.approx(expected.no_answer, abs=1e-4)
            assert (reading.windows, reading.cut) == (len(windows), 0)
        # The long one, read in batches of four windows, is not done before the last of them.
        assert done == sorted(done) and done[-1] == 9 and done.count(9) < 4
        told = [event for event in said if isinstance(event, events.Progress)]
        assert {event.task for event in told} == {"reading"} and told[0].done < told[-1].done
        assert [event for event in told if event.done == event.total] == [told[-1]]
        assert told[-1].done == sum(reading.windows for reading in found) > 40


@pytest.mark.slow
def test_a_document_of_five_megabytes_is_read_to_its_end(reader) -> None:
    _, bundle = reader
    text = "the river is in the winter. " * (5_000_000 // 28)
    [pair] = pair_up(
        [{"question": "Where?", "context": text}], bundle.tokenizer, Setup(Limits(128, 8))
    )
    last = pair.windows(128)[-1]
    assert last.first + last.tokens == len(pair.places)
    assert pair.places[-1, 1] == len(text.rstrip())
    assert all(
        b.first <= a.first + a.tokens
        for a, b in zip(pair.windows(128), pair.windows(128)[1:], strict=False)
    )


def test_several_answers_are_listed(reader) -> None:
    _, bundle = reader
    setup = replace(SETUP, options={"stride": 12, "n_best": 3, "no_answer_threshold": 0.0})
    [found] = answers(bundle, [{"question": "Where?", "context": LONG}], setup)
    listed = found.details["alternatives"]
    assert len(listed) == 3
    assert [entry["score"] for entry in listed] == sorted(
        (e["score"] for e in listed), reverse=True
    )
    for entry in listed:
        if entry["start"] is not None:
            assert LONG[entry["start"] : entry["end"]] == entry["answer"]


# -- no answer -------------------------------------------------------------------------------------


def test_a_threshold_is_looked_for_only_where_questions_may_have_no_answer(reader) -> None:
    _, bundle = reader
    setup = learn(iter(made_rows(5)), SETUP)
    assert setup == SETUP
    assert calibrate(bundle, made_rows(5), setup, Inference()) == SETUP
    rows = made_rows(30, seed=2, unanswerable=0.5)
    setup = learn(iter(rows), SETUP)
    assert setup.options["found_threshold"] == 0.0
    found = calibrate(bundle, rows, setup, Inference())
    threshold = found.options["found_threshold"]
    assert math.isfinite(threshold)
    # With the threshold found the score is at least that of either extreme.
    from mainspring.metrics.answers import METRIC, SQUAD_2

    def f1(value: float) -> float:
        options = {**SETUP.options, "no_answer_threshold": value}
        made = [a.value for a in answers(bundle, rows, replace(SETUP, options=options))]
        return METRIC.scores(METRIC.score_rows(made, [r["answers"] for r in rows], SQUAD_2))["f1"]

    assert f1(threshold) >= max(f1(-1e9), f1(1e9), f1(0.0)) - 1e-6


# -- other families --------------------------------------------------------------------------------


def test_models_without_token_types(tmp_path: Path) -> None:
    tokenizer = their_tokenizer()
    transformers.set_seed(1)
    theirs = transformers.DistilBertForQuestionAnswering(
        transformers.DistilBertConfig(
            vocab_size=len(tokenizer),
            dim=24,
            n_heads=2,
            n_layers=1,
            hidden_dim=32,
            max_position_embeddings=64,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bundle = load(tmp_path)
    examples = encode(made_rows(3), bundle.tokenizer, Setup(Limits(64, 8)))
    batch = collate(examples, special_ids(bundle.tokenizer, bundle.config, bundle.spec), 0, 1)
    keep = torch.ones_like(batch.source_BS) if batch.keep_BS is None else batch.keep_BS.long()
    with torch.no_grad():
        ours = logits(bundle.model, batch)[..., 0]
        wanted = theirs(batch.source_BS, keep).start_logits
    real = keep.bool()
    assert torch.allclose(ours[real], wanted[real], atol=1e-5)


def test_what_it_needs() -> None:
    import nano

    assert FORMULATION.lacks(nano.bundle().spec) == "an encoder alone"
    layout = pair_layout(nano.tokenizer())  # a tokenizer that sets </s> behind each text
    assert (layout.before, layout.between, layout.after) == ((), (1,), (1,))


def test_readings_stream(reader) -> None:
    _, bundle = reader

    def rows():
        yield from made_rows(8)
        raise RuntimeError("read too far")

    found = read(bundle, rows(), SETUP, Inference(chunk=4))
    assert next(found).windows == 1


def test_answers_of_every_kind_go_through_to_training(reader) -> None:
    _, bundle = reader
    row = made_rows(1)[0]
    text = row["answers"][0]["text"]
    plain = in_place({**row, "answers": KINDS["answers"](text)})
    plain.pop("mended")
    assert encode([plain], bundle.tokenizer, SETUP)


def test_an_answer_across_the_windows_gets_one_of_its_own(reader) -> None:
    _, bundle = reader
    [pair] = pair_up([{"question": "Where?", "context": LONG}], bundle.tokenizer, SETUP)
    first = pair.windows(12)[1].first - 5
    start, end = int(pair.places[first, 0]), int(pair.places[first + 25, 1])
    answers_of = [{"text": LONG[start:end], "start": start}]
    row = {"question": "Where?", "context": LONG, "answers": answers_of}
    *others, own = encode([row], bundle.tokenizer, SETUP)
    assert len(others) == len(pair.windows(12)) and all(not e.target[0] for e in others)
    learnt = own.source[own.target[0] : own.target[1] + 1]
    assert learnt == [*pair.context[first : first + 26]]
    # One that fits in no window points nowhere, and is counted.
    whole = {**row, "answers": [{"text": LONG, "start": 0}]}
    examples = encode([whole], bundle.tokenizer, SETUP)
    assert not any(example.target[0] for example in examples)
    assert examples[0].target_lost == 1
