"""Labels for texts and pairs: against `transformers` and its tokenizers, and by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import TEXTS, decoder, encoder, shaken, tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.errors import BadData, BadOption
from mainspring.formulations import IGNORED, Batch, Inference, Limits, Setup, special_ids
from mainspring.formulations import classification as form
from mainspring.training.rows import EncodedRows

lean = settings(max_examples=20, deadline=None, derandomize=True, database=None)

LABELS = ("bad", "fine", "good")
ROWS = [
    {"text": TEXTS[0], "label": "good"},
    {"text": TEXTS[1], "label": "bad"},
    {"text": TEXTS[2], "label": "fine"},
    {"text": "a film", "label": "good"},
]
PAIRS = [
    {"text": "the film", "second": "was good, lovely", "label": "good"},
    {"text": TEXTS[1], "second": "sad", "label": "bad"},
]
SETUP = Setup(Limits(40, 2), labels=LABELS)
SEVERAL = replace(SETUP, options={"problem_type": form.SEVERAL})


def batch_of(rows: list[dict], setup: Setup, bundle: Bundle) -> Batch:
    examples = form.encode(rows, bundle.tokenizer, setup)
    return form.collate(examples, special_ids(bundle.tokenizer, bundle.config, bundle.spec), 0, 16)


# -- against transformers ----------------------------------------------------------------------


def oracle(bundle: Bundle, folder: Path, several: bool = False):
    """What `transformers` makes of the saved folder."""
    if several:
        bundle.config["problem_type"] = form.SEVERAL
    bundle.save(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.oracle
@pytest.mark.parametrize("rows", [ROWS, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_loss_logits_and_one_step_equal_those_of_transformers(
    rows: list[dict], several: bool, tmp_path: Path
) -> None:
    bundle = shaken(encoder(LABELS))
    setup = SETUP
    if several:
        setup, rows = SEVERAL, [{**row, "label": ["good", row["label"]]} for row in rows]
    theirs, their_tokenizer = oracle(bundle, tmp_path, several)
    batch = batch_of(rows, setup, bundle)
    texts = [[row["text"] for row in rows]]
    if "second" in rows[0]:
        texts.append([row["second"] for row in rows])
    read = their_tokenizer(*texts, padding=True, return_tensors="pt")
    width = read.input_ids.shape[1]
    assert torch.equal(batch.source_BS[:, :width], read.input_ids)
    assert (batch.source_BS[:, width:] == 0).all()
    if batch.types_BS is not None:
        assert torch.equal(batch.types_BS[:, :width], read.token_type_ids)
    if several:
        labels = torch.tensor([[float(name in row["label"]) for name in LABELS] for row in rows])
    else:
        labels = torch.tensor([LABELS.index(row["label"]) for row in rows])
    out = theirs(**read, labels=labels)
    logits_BC = form.class_logits(bundle.model, batch)
    torch.testing.assert_close(logits_BC, out.logits, atol=1e-5, rtol=1e-5)
    loss = form.losses(bundle.model, batch).sum() / batch.target_tokens
    torch.testing.assert_close(loss, out.loss, atol=1e-5, rtol=1e-5)

    for model, its_loss in ((bundle.model, loss), (theirs, out.loss)):
        its_loss.backward()
        torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01).step()
    again = tmp_path / "again"
    theirs.save_pretrained(again)
    stepped = load(again).model.state_dict()
    for name, tensor in bundle.model.state_dict().items():
        # A bias of all keys changes no attention: its gradient is rounding, which AdamW blows up.
        if not name.endswith(".k.bias"):
            torch.testing.assert_close(tensor, stepped[name], atol=2e-6, rtol=1e-4)


@pytest.mark.oracle
def test_a_decoder_reads_its_last_token_as_transformers_does(tmp_path: Path) -> None:
    bundle = shaken(decoder(LABELS))
    theirs, their_tokenizer = oracle(bundle, tmp_path)
    batch = batch_of(ROWS, SETUP, bundle)
    read = their_tokenizer([row["text"] for row in ROWS], padding=True, return_tensors="pt")
    out = theirs(input_ids=read.input_ids, attention_mask=read.attention_mask)
    torch.testing.assert_close(
        form.class_logits(bundle.model, batch), out.logits, atol=1e-5, rtol=1e-5
    )


# -- labels ------------------------------------------------------------------------------------


def test_labels_are_learnt_in_their_natural_order() -> None:
    rows = [{"label": name} for name in ("10", "9", "x", "9", "a")]
    setup = form.learn(rows, Setup(Limits(9, 2)))
    assert setup.labels == ("9", "10", "a", "x")
    assert setup.options["counts"] == {"10": 1, "9": 2, "x": 1, "a": 1}
    assert setup.options["rows"] == 5 and not form.has_several(setup)
    several = form.learn([{"label": ["a", "b"]}, {"label": []}], Setup(Limits(9, 2)))
    assert form.has_several(several) and several.labels == ("a", "b")
    # A checkpoint that knows them already keeps its order, and so its head.
    known = Setup(Limits(9, 2), labels=("x", "a", "9", "10", "11"))
    assert form.learn(rows, known).labels == known.labels


@pytest.mark.parametrize("rows", [[], [{"label": "a"}] * 3, [{"label": []}]])
def test_one_label_alone_teaches_nothing(rows: list[dict]) -> None:
    with pytest.raises(BadData, match="nothing to tell apart"):
        form.learn(rows, SETUP)


def test_rare_labels_weigh_more_and_the_mean_over_the_rows_stays_one() -> None:
    options = {"counts": {"a": 90, "b": 10}, "rows": 100, "problem_type": form.ONE}
    for balance, ratio in (("inverse", 9.0), ("sqrt", 3.0)):
        setup = Setup(Limits(9, 2), labels=("a", "b"), options={**options, "balance": balance})
        weights = form.label_weights(setup)
        assert math.isclose(weights["b"] / weights["a"], ratio)
        assert math.isclose(0.9 * weights["a"] + 0.1 * weights["b"], 1.0)
    balanced = {"a": 100 / (2 * 90), "b": 100 / (2 * 10)}  # scikit-learn's "balanced"
    setup = Setup(Limits(9, 2), labels=("a", "b"), options={**options, "balance": "inverse"})
    assert form.label_weights(setup) == pytest.approx(balanced)
    assert form.label_weights(replace(setup, options={**options, "balance": "none"})) == {}
    with pytest.raises(BadOption, match="sqrt"):
        form.label_weights(replace(setup, options={"balance": "sqr"}))


def test_weights_and_unknown_labels_in_the_loss() -> None:
    bundle = encoder(LABELS)
    options = {"counts": {"bad": 1, "fine": 1, "good": 2}, "rows": 4, "balance": "inverse"}
    plain, weighed = (
        form.losses(bundle.model, batch_of(ROWS, setup, bundle))
        for setup in (SETUP, replace(SETUP, options=options))
    )
    factor = torch.tensor([2 / 3, 4 / 3, 4 / 3, 2 / 3])
    torch.testing.assert_close(weighed, plain * factor)
    strange = [*ROWS, {"text": "a film", "label": "never seen"}]
    batch = batch_of(strange, replace(SETUP, options=options), bundle)
    assert batch.labels_BT[-1].tolist() == [IGNORED] and batch.target_tokens == 4
    torch.testing.assert_close(
        form.losses(bundle.model, batch), torch.cat([weighed, factor[:1] * 0])
    )


def test_the_yes_of_a_rare_label_weighs_more() -> None:
    options = {"problem_type": form.SEVERAL, "counts": {"bad": 10, "good": 90}, "rows": 100}
    setup = Setup(Limits(40, 2), labels=("bad", "good"), options={**options, "balance": "inverse"})
    bundle = encoder(("bad", "good"))
    rows = [{"text": "a film", "label": ["bad"]}, {"text": "a film", "label": ["good"]}]
    batch = batch_of(rows, setup, bundle)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        form.class_logits(bundle.model, batch),
        torch.eye(2),
        pos_weight=torch.tensor([9.0, 1 / 9]),
        reduction="none",
    ).sum(1)
    torch.testing.assert_close(form.losses(bundle.model, batch), expected)


def test_examples_survive_being_kept_flat() -> None:
    options = {"counts": {"bad": 1, "fine": 1, "good": 2}, "rows": 4, "balance": "sqrt"}
    for setup in (SETUP, replace(SETUP, options=options)):
        examples = form.encode([*ROWS, *PAIRS], tokenizer(), setup)
        kept = EncodedRows(examples)
        for number, example in enumerate(examples):
            assert kept[number].source == list(example.source)
            assert kept[number].second == example.second
            assert kept[number].weights == pytest.approx(list(example.weights))
    assert kept.hash != EncodedRows(form.encode([*ROWS, *PAIRS], tokenizer(), SETUP)).hash


# -- lengths -----------------------------------------------------------------------------------


@lean
@given(st.integers(5, 40), st.integers(0, 30), st.integers(0, 30))
def test_of_a_pair_the_longer_text_is_cut(limit: int, first: int, second: int) -> None:
    row = {"text": "a" * (first + 1), "second": "b" * (second + 1), "label": "good"}
    [example] = form.encode([row], tokenizer(), Setup(Limits(limit, 2), labels=LABELS))
    whole = len(tokenizer().backend.encode(row["text"], row["second"]).ids)
    assert len(example.source) == min(limit, whole)
    assert example.source_lost == whole - len(example.source)
    [a] = tokenizer().encode_many([row["text"]], special=False)
    kept_a = example.second - 2
    kept_b = len(example.source) - example.second - 1
    assert list(example.source[1 : 1 + kept_a]) == a[:kept_a]
    if example.source_lost:
        assert abs(kept_a - kept_b) <= 1 or min(kept_a, kept_b) in (len(a), second + 1)


def test_a_long_text_is_read_in_windows_and_their_scores_averaged() -> None:
    bundle = shaken(encoder(LABELS), 0.2)
    text = " ".join(f"{sentence}" for sentence in TEXTS[:2] * 4)
    limits = Limits(24, 2)
    setup = replace(SETUP, limits=limits)

    def answer(on_long: str, row: dict):
        [found] = form.predict(bundle, [row], setup, Inference(on_long=on_long))
        return found

    split = answer("split", {"text": text})
    tokens = len(tokenizer().encode(text))
    assert split.windows > 3 and split.source_tokens_unread == 0 and split.source_tokens == tokens
    cut = answer("cut", {"text": text})
    assert cut.windows == 1 and cut.source_tokens_unread == tokens - 24
    refused = answer("refuse", {"text": text})
    assert "24" in refused.error and refused.value == "" and refused.windows == 0
    assert split.details["scores"] != cut.details["scores"]
    pair = answer("split", {"text": text, "second": "a film"})
    assert pair.windows == 1 and pair.source_tokens_unread > 0
    short = answer("split", {"text": "a film"})
    assert short.details["score"] == max(short.details["scores"].values())


def test_windows_are_averaged() -> None:
    probabilities = [torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.9, 0.1, 0.0])]
    reading = form.Reading([], 9, scores=probabilities)
    found = form.prediction(reading, SETUP)
    assert found.value == "bad" and found.details["score"] == pytest.approx(0.5)
    chosen = form.prediction(
        reading, replace(SEVERAL, options={**SEVERAL.options, "threshold": 0.3})
    )
    assert chosen.value == ["bad", "good"]


def test_predictions_come_in_order_however_they_are_batched() -> None:
    bundle = shaken(encoder(LABELS), 0.2)
    rows = [{"text": text} for text in (*TEXTS, "a", *TEXTS, "b")] * 2
    done: list[int] = []
    whole = list(form.predict(bundle, rows, SETUP, Inference(), done.append))
    assert done == [16]
    for how in (Inference(tokens=30, chunk=3), Inference(tokens=1, chunk=100)):
        parts = list(form.predict(bundle, rows, SETUP, how))
        assert [part.value for part in parts] == [found.value for found in whole]
        for part, found in zip(parts, whole, strict=True):
            assert part.details["scores"] == pytest.approx(found.details["scores"], abs=1e-5)


def test_the_picture_names_the_label() -> None:
    [example] = form.encode(ROWS[-1:], tokenizer(), SETUP)
    assert form.picture(example, tokenizer(), SETUP).endswith("■ good ■")
    [several] = form.encode([{**ROWS[-1], "label": ["bad", "good"]}], tokenizer(), SEVERAL)
    assert form.picture(several, tokenizer(), SEVERAL).endswith("■ bad good ■")


def test_what_lacks_for_it() -> None:
    import nano

    assert form.lacks(encoder().spec) is None
    assert form.lacks(nano.bundle().spec) == "an encoder alone or a decoder alone, for text"
