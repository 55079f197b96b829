"""Token classification: the loss of transformers, entities with exact places, windows, repairs."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from mainspring import events
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.heads import with_head
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.data.entities import checked_entities, join_words, tagged_entities
from mainspring.data.kinds import Flaw
from mainspring.errors import BadData, BadOption, Mismatch
from mainspring.families.bert import FAMILY
from mainspring.formulations import IGNORED, Inference, Limits, Setup, special_ids
from mainspring.formulations import token_classification as tc

SENTENCES = [
    ("Angela Merkel besucht Paris .", "B-PER I-PER O B-LOC O"),
    ("In Paris und London regnet es .", "O B-LOC O B-LOC O O O"),
    ("我 在 北京 工作 。", "O O B-LOC O O"),
    ("Merkel", "B-PER"),
    ("Nichts zu sehen .", "O O O O"),
]


def of_words(words: str, tags: str) -> dict[str, Any]:
    text, places = join_words(words.split())
    return {"text": text, "words": places, "entities": tagged_entities(places, tags.split())[0]}


ROWS = [of_words(*sentence) for sentence in SENTENCES]
SETUP = tc.learn(ROWS, Setup(Limits(40, 1)))
SETUP_ORG = replace(SETUP, labels=(*SETUP.labels, "B-ORG", "I-ORG"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of transformers' own."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = train_tokenizer([row["text"] for row in ROWS] * 3, 300, layout=FAMILY.tokens)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocabulary,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
        id2label=dict(enumerate(SETUP.labels)),
        label2id={label: i for i, label in enumerate(SETUP.labels)},
        initializer_range=0.3,
    )
    transformers.BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load(folder)


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Tokenizer:
    assert bundle.tokenizer is not None
    return bundle.tokenizer


def predict(bundle: Bundle, rows: list[dict], setup: Setup = SETUP, **how: Any) -> list[Any]:
    return list(tc.predict(bundle, iter(rows), setup, Inference(**how)))


# -- training --------------------------------------------------------------------------------------


def test_the_loss_is_that_of_transformers(
    folder: Path, bundle: Bundle, tokenizer: Tokenizer
) -> None:
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    batch = tc.collate(
        tc.encode(ROWS, tokenizer, SETUP), special_ids(tokenizer, bundle.config, bundle.spec), 0, 8
    )
    assert batch.keep_BS is not None and batch.source_BS.shape == batch.labels_BT.shape
    with torch.no_grad():
        made = theirs(
            input_ids=batch.source_BS, attention_mask=batch.keep_BS.long(), labels=batch.labels_BT
        )
        ours = tc.read_logits(bundle.model, batch.source_BS, batch.keep_BS)
        losses = tc.losses(bundle.model, batch)
    torch.testing.assert_close(ours[batch.keep_BS], made.logits[batch.keep_BS], atol=1e-5, rtol=0)
    assert batch.target_tokens == int((batch.labels_BT != IGNORED).sum()) == 24
    torch.testing.assert_close(losses.sum() / batch.target_tokens, made.loss, atol=1e-6, rtol=1e-6)
    assert losses.shape == (len(ROWS),)


def test_words_are_learnt_at_their_first_token(tokenizer: Tokenizer) -> None:
    [example] = tc.encode(ROWS[:1], tokenizer, SETUP)
    names = [SETUP.labels[label] for label in example.target if label != IGNORED]
    assert names == SENTENCES[0][1].split()
    assert example.target[0] == example.target[-1] == IGNORED
    assert len(example.source) == len(example.target) > 7
    assert "■B-PER" in tc.picture(example, tokenizer, SETUP)


def test_characters_are_learnt_at_every_token(tokenizer: Tokenizer) -> None:
    plain = {name: ROWS[0][name] for name in ("text", "entities")}
    [example] = tc.encode([plain], tokenizer, SETUP)
    pairs = zip(example.source, example.target, strict=True)
    inside = [label for token, label in pairs if tokenizer.decode([token]).strip()]
    assert IGNORED not in inside
    names = [SETUP.labels[label] for label in inside]
    assert names.count("B-PER") == names.count("B-LOC") == 1
    assert names[: names.index("O")] == ["B-PER"] + ["I-PER"] * (names.index("O") - 1)
    assert example.target_lost == 0


def test_words_without_spaces_are_learnt_at_every_token(tokenizer: Tokenizer) -> None:
    """Plain Chinese text is read token by token, so each has to be learnt."""
    [example] = tc.encode([of_words("北京大学 在 北京", "B-ORG O B-LOC")], tokenizer, SETUP_ORG)
    pairs = zip(example.source, example.target, strict=True)
    read = [SETUP_ORG.labels[label] for _, label in pairs if label != IGNORED]
    assert read[0] == "B-ORG" and set(read[1 : read.index("O")]) == {"I-ORG"}
    assert len(read) > 3


def test_places_that_count_utf16_units_are_warned_of() -> None:
    text = "\U0001f600 Al is John Smith of New York now"

    def warned(shift: int) -> bool:
        names = ("Al", "John Smith", "New York")
        spans = [(text.index(name) + shift, name) for name in names]
        given = [[start, start + len(name), "X"] for start, name in spans]
        row = {"text": text, "entities": checked_entities(text, given)[0]}
        before = {"text": "Bonn \U0001f600", "entities": checked_entities("Bonn", [[0, 4, "X"]])[0]}
        seen: list[events.Event] = []
        with events.listening(seen.append):
            tc.learn([row, row, before], Setup(Limits(9, 1)))
        return any("UTF-16" in str(event) for event in seen)

    assert not warned(0)
    with pytest.raises(Flaw):
        warned(30)
    assert warned(1)


def test_what_is_learnt_of_the_rows() -> None:
    assert SETUP.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert SETUP.options["units"] == "words"
    known = replace(SETUP, labels=("B-PER", "I-PER", "B-LOC", "I-LOC", "B-X", "I-X", "O"))
    assert tc.learn(ROWS, known).labels == known.labels
    other = replace(SETUP, labels=("B-PER", "I-PER", "O"))
    assert tc.learn(ROWS, other).labels == SETUP.labels
    within = {"text": "Parisreise", "entities": [{"label": "LOC", "start": 0, "end": 5}]}
    assert tc.learn([within], Setup(Limits(9, 1))).options["units"] == "tokens"
    early = {"text": "Anna slept", "entities": [{"label": "PER", "start": 0, "end": 3}]}
    with pytest.raises(
        BadData, match=r"all 10 entities end one character before .* add one to each"
    ):
        tc.learn([early] * 10, Setup(Limits(9, 1)))
    tc.learn([early] * 9, Setup(Limits(9, 1)))
    right = {**early, "entities": [{"label": "PER", "start": 0, "end": 4}]}
    tc.learn([*[early] * 10, right], Setup(Limits(9, 1)))
    with pytest.raises(BadData, match="hold no entity"):
        tc.learn(ROWS[4:], SETUP)
    with pytest.raises(BadOption, match="--prefix"):
        tc.learn(ROWS, replace(SETUP, prefix="find: "))


def test_labels_that_were_not_learnt_carry_no_loss(tokenizer: Tokenizer) -> None:
    [example] = tc.encode([of_words("Merkel in Paris", "B-NEW O B-LOC")], tokenizer, SETUP)
    names = [SETUP.labels[label] for label in example.target if label != IGNORED]
    assert names == ["O", "B-LOC"]


def test_entities_that_tokens_cannot_tell_are_counted(tokenizer: Tokenizer) -> None:
    text = ROWS[0]["text"]
    [(_, offsets)] = tokenizer.offsets_many([text])
    end = next(b for a, b in offsets if b - a > 1)
    odd = {"text": text, "entities": [{"label": "LOC", "start": end - 1, "end": len(text)}]}
    assert [example.target_lost for example in tc.encode([odd], tokenizer, SETUP)] == [1]


@pytest.mark.parametrize("words", [True, False])
def test_a_long_row_is_learnt_once_in_every_part(tokenizer: Tokenizer, words: bool) -> None:
    row = of_words(" ".join([SENTENCES[0][0]] * 40), " ".join([SENTENCES[0][1]] * 40))
    if not words:
        row.pop("words")
    long, short = replace(SETUP, limits=Limits(10_000, 1)), replace(SETUP, limits=Limits(40, 1))
    [whole], parts = tc.encode([row], tokenizer, long), tc.encode([row], tokenizer, short)
    assert len(parts) > 5 and max(len(part.source) for part in parts) <= 40

    def learnt(examples: list[Any]) -> list[tuple[int, int]]:
        pairs = (zip(e.source, e.target, strict=True) for e in examples)
        return [(token, label) for row in pairs for token, label in row if label != IGNORED]

    assert learnt(parts) == learnt([whole])


def test_limits_that_leave_no_room(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadOption, match="leaves no room"):
        tc.encode(ROWS, tokenizer, replace(SETUP, limits=Limits(2, 1)))


def test_models_that_cannot_do_it(bundle: Bundle) -> None:
    from mainspring.testing import tiny

    assert tc.lacks(bundle.spec) is None
    assert tc.lacks(tiny("t5").spec) == tc.lacks(tiny("gpt2").spec) == "an encoder alone"
    assert tc.lacks(tiny("vit").spec) == "an encoder that reads tokens"
    with pytest.raises(Mismatch, match="tells 5 classes apart and names 3"):
        predict(bundle, ROWS, replace(SETUP, labels=("O", "B-X", "I-X")))


# -- prediction ------------------------------------------------------------------------------------


class Oracle:
    """Stands in the place of the model's logits: says of each token what a function of its text
    says, so that decoding is tested and not the model."""

    def __init__(self, tokenizer: Tokenizer, labels: tuple[str, ...], says: Any):
        self.tokenizer, self.labels, self.says = tokenizer, labels, says

    def __call__(self, model: Any, source_BS: torch.Tensor, keep_BS: Any) -> torch.Tensor:
        names = [[self.says(token) for token in self.tokenizer.tokens(row)] for row in source_BS]
        ids = torch.tensor([[self.labels.index(name) for name in row] for row in names])
        return 8 * torch.nn.functional.one_hot(ids, len(self.labels)).float()


def says(token: str) -> str:
    bare = token.strip("▁")
    if bare.startswith(("Angela", "Ang", "A")):
        return "B-PER"
    if bare.startswith(("Merkel", "Mer", "M")):
        return "I-PER"
    return "B-LOC" if bare.startswith(("Paris", "Par", "P", "Lon", "L", "北")) else "O"


@pytest.fixture
def oracle(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tc, "read_logits", Oracle(tokenizer, SETUP.labels, says))


@pytest.mark.usefixtures("oracle")
def test_entities_stand_where_they_say(bundle: Bundle) -> None:
    text = "Oh,\t Angela   Merkel! 👍🏽 (Paris)\nLondon"
    [found] = predict(bundle, [{"text": text}])
    assert [(e["text"], e["label"]) for e in found.value] == [
        ("Angela   Merkel", "PER"),
        ("Paris", "LOC"),
        ("London", "LOC"),
    ]
    for entity in found.value:
        assert text[entity["start"] : entity["end"]] == entity["text"] == entity["word"]
        assert entity["label"] == entity["entity_group"]
        assert 0.9 < entity["score"] <= 1
    assert (found.windows, found.source_tokens_unread, dict(found.counts)) == (1, 0, {})


@pytest.mark.usefixtures("oracle")
def test_rows_of_words_get_a_tag_for_each(bundle: Bundle) -> None:
    found = predict(bundle, ROWS)
    assert [" ".join(p.details["predicted_tags"]) for p in found[:2]] == [
        tags for _, tags in SENTENCES[:2]
    ]
    assert found[0].details["text"] == SENTENCES[0][0]
    assert found[4].value == []


@pytest.mark.usefixtures("oracle")
def test_broken_tags_are_repaired_and_counted(bundle: Bundle) -> None:
    """`Merkel` alone is said to go on with nothing."""
    for decoding in ("viterbi", "argmax"):
        setup = replace(SETUP, options={**SETUP.options, "decoding": decoding})
        [found] = predict(bundle, [{"text": "Gestern Merkel ."}], setup)
        assert found.counts == {"tag repairs": 1}
        if decoding == "argmax":
            assert [e["text"] for e in found.value] == ["Merkel"]


@pytest.mark.usefixtures("oracle")
def test_labels_that_the_model_does_not_know_are_counted(bundle: Bundle) -> None:
    [found] = predict(bundle, [of_words("Merkel in Paris", "B-NEW O B-LOC")])
    assert found.counts["entities of unknown labels"] == 1


@pytest.mark.parametrize("size", [12, 17, 40])
@pytest.mark.usefixtures("oracle")
def test_windows_find_what_is_found_in_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    text = "\n".join(f"Angela Merkel {i} Paris. London und Angela Merkel" for i in range(30))
    whole = predict(bundle, [{"text": text}], replace(SETUP, limits=Limits(100_000, 1)))
    parts = predict(bundle, [{"text": text}], replace(SETUP, limits=Limits(size, 1)), chunk=4)
    assert parts[0].value == whole[0].value and len(whole[0].value) == 120
    assert parts[0].windows > 10 and parts[0].source_tokens == whole[0].source_tokens
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mainspring.formulations.units.BLOCK", 300)
        assert predict(bundle, [{"text": text}])[0].value == whole[0].value


@pytest.mark.usefixtures("oracle")
def test_a_text_that_is_too_long_may_be_cut_or_refused(bundle: Bundle) -> None:
    rows = [{"text": "Paris und London . " * 30}, {"text": "Paris"}]
    short = replace(SETUP, limits=Limits(12, 1))
    cut, other = predict(bundle, rows, short, on_long="cut")
    assert cut.windows == 1 and cut.source_tokens_unread == cut.source_tokens - 12 > 0
    assert 0 < len(cut.value) < 60
    refused, same = predict(bundle, rows, short, on_long="refuse")
    assert refused.value == [] and "and the model reads 12" in refused.error
    assert same.value == other.value and same.error is None


@pytest.mark.parametrize("options", [{}, {"tokens": 30, "chunk": 3}])
def test_batches_change_nothing_and_keep_the_order(bundle: Bundle, options: dict) -> None:
    rows = [{"text": " ".join(SENTENCES[i % 5][0].split() * (1 + i % 7))} for i in range(23)]
    together = predict(bundle, rows, **options)
    alone = [predict(bundle, [row])[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        assert [(e["label"], e["start"], e["end"]) for e in a.value] == [
            (e["label"], e["start"], e["end"]) for e in b.value
        ]
        assert np.allclose([e["score"] for e in a.value], [e["score"] for e in b.value], atol=1e-3)
    done: list[int] = []
    list(tc.predict(bundle, iter(rows), SETUP, Inference(chunk=5), done.append))
    assert done[-1] == len(rows) and done == sorted(done)


def test_texts_in_which_nothing_is_to_be_read(bundle: Bundle) -> None:
    found = predict(bundle, [{"text": "\u200b"}, {"text": "\n \n"}, {"text": "Paris"}])
    assert [p.value for p in found[:2]] == [[], []] and len(found) == 3


def test_memory_does_not_follow_the_length_of_a_text(bundle: Bundle) -> None:
    """A few numbers a token stay; windows and what the model says of them do not."""

    def peak(lines: int) -> int:
        text = "Angela Merkel besucht Paris. Nichts zu sehen.\n" * lines
        tracemalloc.start()
        predict(bundle, [{"text": text}], chunk=4)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(160) - peak(40) < 120 * 46 * 200


def test_any_encoder_is_given_the_head(bundle: Bundle) -> None:
    fresh = with_head(bundle, tc.HEAD, ("O", "B-X", "I-X"), seed=1)
    assert fresh.config["id2label"] == {"0": "O", "1": "B-X", "2": "I-X"}
    found = predict(fresh, ROWS, replace(SETUP, labels=("O", "B-X", "I-X")))
    assert {e["label"] for p in found for e in p.value} <= {"X"}
