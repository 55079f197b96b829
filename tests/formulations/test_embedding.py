"""Sentence vectors: those of transformers with the pooling done by hand, whatever the batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from answering import config, tokenizer
from answering import rows as made_rows
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.packaged import cache_folder
from mainspring.checkpoints.sentence import SentenceSettings, sentence_settings
from mainspring.errors import BadOption, BadWeights, Mismatch
from mainspring.formulations.embedding import embed, embedder

TEXTS = [
    "Who?",
    *(row["context"] for row in made_rows(9)),
    "北京大学建于1898年。",
    "the river " * 40,
]


def write_encoder(folder: Path, *, normalise: bool = True, limit: int = 40) -> Any:
    """A random sentence encoder that pools by the mean; what transformers makes of it."""
    transformers.set_seed(3)
    theirs = transformers.BertModel(config()).eval()
    theirs.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": "1_Pooling" * (kind == "Pooling")}
        for kind in kinds
    ]
    (folder / "1_Pooling").mkdir()
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": limit, "do_lower_case": False},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return theirs


def by_hand(
    theirs: Any, texts: list[str], limit: int = 40, *, normalise: bool = True
) -> np.ndarray:
    given_to = tokenizer()(
        texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = theirs(**given_to).last_hidden_state
    share = given_to["attention_mask"][..., None].float()
    mean = (hidden * share).sum(1) / share.sum(1)
    return (F.normalize(mean, dim=-1) if normalise else mean).numpy()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bundle]:
    folder = tmp_path_factory.mktemp("sentences")
    return write_encoder(folder), load(folder)


def test_equal_to_transformers_and_mean_pooling(encoder) -> None:
    theirs, bundle = encoder
    found = list(embed(embedder(bundle), TEXTS))
    assert np.allclose([e.vector for e in found], by_hand(theirs, TEXTS), atol=1e-5)
    assert [e.unread > 0 for e in found] == [False] * (len(TEXTS) - 1) + [True]
    assert found[-1].tokens == 80 and found[-1].unread == 42


def test_another_pooling_than_the_stored_one(encoder) -> None:
    theirs, bundle = encoder
    model = embedder(bundle, pool="mean")
    found = np.stack([e.vector for e in embed(model, TEXTS)])
    assert np.allclose(found, by_hand(theirs, TEXTS, normalise=False), atol=1e-5)
    first = np.stack([e.vector for e in embed(embedder(bundle, pool="first"), TEXTS)])
    assert not np.allclose(first, found, atol=1e-2)


@given(st.permutations(range(len(TEXTS))), st.integers(1, 9))
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
def test_order_and_company_change_nothing(encoder, order: list[int], chunk: int) -> None:
    import mainspring.formulations.embedding as module

    _, bundle = encoder
    alone = np.stack([e.vector for e in embed(embedder(bundle), TEXTS)])
    before = module.CHUNK, module.TOKENS
    module.CHUNK, module.TOKENS = chunk, 64
    try:
        found = [e.vector for e in embed(embedder(bundle), (TEXTS[n] for n in order))]
    finally:
        module.CHUNK, module.TOKENS = before
    assert np.allclose(found, alone[order], atol=1e-5)


def test_long_texts_in_windows(encoder) -> None:
    _, bundle = encoder
    [whole] = embed(embedder(bundle), [TEXTS[-1]], on_long="split")
    assert (whole.windows, whole.unread) == (3, 0)
    assert np.linalg.norm(whole.vector) == pytest.approx(1)
    [short, same] = embed(embedder(bundle), ["Who?", "Who?"], on_long="split")
    assert np.allclose(short.vector, same.vector) and short.windows == 1


def test_texts_stream(encoder) -> None:
    _, bundle = encoder

    def texts():
        yield from ["a"] * 1024
        raise RuntimeError("read too far")

    assert next(embed(embedder(bundle), texts())).tokens == 1


def test_an_empty_text_has_a_vector_too(encoder) -> None:
    theirs, bundle = encoder
    [found] = embed(embedder(bundle), [""])
    assert np.allclose(found.vector, by_hand(theirs, [""])[0], atol=1e-5)


def test_models_that_make_no_sentence_vectors(tmp_path: Path) -> None:
    transformers.BertModel(config()).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    bundle = load(tmp_path)
    with pytest.raises(Mismatch, match="--pool mean"):
        embedder(bundle)
    assert embedder(bundle, pool="mean").limit == 128
    with pytest.raises(BadOption, match="between 4 and 128"):
        embedder(bundle, pool="mean", max_source=129)
    with pytest.raises(Mismatch, match="one stack"):
        embedder(nano.bundle())


def test_a_decoder_may_make_them_from_its_last_token() -> None:
    from mainspring.checkpoints.bundle import new_bundle

    bundle = new_bundle("llama-tiny", nano.tokenizer(), 0)
    texts = ["river bridge", "river bridge station harbor", "river"]
    found = [e.vector for e in embed(embedder(bundle, pool="last"), texts)]
    alone = [next(embed(embedder(bundle, pool="last"), [text])).vector for text in texts]
    assert np.allclose(found, alone, atol=1e-5)


def test_settings_are_read_from_the_files() -> None:
    assert sentence_settings({}) == SentenceSettings()
    files = {
        "sentence_bert_config.json": b'{"max_seq_length": 256, "do_lower_case": true}',
        "config_sentence_transformers.json": json.dumps(
            {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": None}
        ).encode(),
    }
    found = sentence_settings(files)
    assert (found.limit, found.lower, found.default) == (256, True, "")
    assert found.prompt("query") == "query: " and found.prompt("other") == ""
    assert found.read("ABC") == "abc"
    with pytest.raises(BadWeights, match="bad JSON"):
        sentence_settings({"sentence_bert_config.json": b"{"})


def test_the_real_encoder() -> None:
    folder = cache_folder() / "minilm"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("`mainspring get minilm` was not called on this machine")
    texts = ["A man is eating food.", "Someone eats.", "北京", "The stock market fell. " * 90]
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    read = words(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**read).last_hidden_state
    share = read["attention_mask"][..., None].float()
    wanted = F.normalize((hidden * share).sum(1) / share.sum(1), dim=-1).numpy()
    found = np.stack([e.vector for e in embed(embedder(load("minilm")), texts)])
    assert np.allclose(found, wanted, atol=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[3]
