"""Real checkpoints, as packages carry them, against `transformers`: the sentence encoder and the
chat model that `mainspring get` fetches."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.weights.maps import to_theirs

SENTENCES = [
    "A man is playing the guitar on a small stage.",
    "Someone performs music with a string instrument.",
    "The stock market fell sharply on Monday.",
    "Shares lost much of their value at the start of the week.",
    "It rains.",
    "Der Regen fällt: naïve café — 1,234.50 €!",
    "x" * 600,
    "",
]
PROMPTS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a child.",
    "List five uses of a paper clip.",
    "What is 17 times 3? Think step by step.",
    "Translate to French: Good morning, my friend.",
    "Summarize: The meeting was moved from Monday to Thursday because the room was taken.",
    "Write a Python function that reverses a list.",
    "Who was Marie Curie?",
    "Give me three names for a cat, and say why.",
]
TOKENS = 64


@pytest.mark.slow
def test_sentences_are_as_alike_as_transformers_says(minilm: Path) -> None:
    """all-MiniLM-L6-v2, in batches with padding; the pooling as its files describe it."""
    bundle = load(minilm)
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    assert bundle.tokenizer is not None
    batch = tokenizer(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
    rows = bundle.tokenizer.encode_many(SENTENCES)
    for ids, row, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        kept = row[mask.bool()].tolist()
        assert ids[: len(kept) - 1] == kept[:-1]  # the longest is cut by theirs
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
        share = batch["attention_mask"][..., None]
        wanted = torch.nn.functional.normalize((hidden * share).sum(1) / share.sum(1), dim=-1)
        found = bundle.model(batch["input_ids"], batch["attention_mask"]).readings["embedding"]
    torch.testing.assert_close(found @ found.T, wanted @ wanted.T, atol=1e-5, rtol=0)
    alike = found @ found.T
    assert alike[0, 1] > 0.4 and alike[2, 3] > 0.4 and alike[0, 2] < 0.2


@pytest.fixture(scope="module")
def smollm(starter: Path) -> Bundle:
    return load(starter)


@pytest.fixture(scope="module")
def smollm_of_transformers(starter: Path) -> Iterator[tuple]:
    [file] = starter.iterdir()
    tokenizer = transformers.AutoTokenizer.from_pretrained(starter, gguf_file=file.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        starter, gguf_file=file.name, dtype=torch.float32
    )
    yield model.eval(), tokenizer


@pytest.mark.slow
def test_the_starter_has_the_very_weights_transformers_reads(
    smollm: Bundle, smollm_of_transformers: tuple
) -> None:
    model, tokenizer = smollm_of_transformers
    theirs = model.state_dict()
    given = to_theirs(smollm.family.pairs(smollm.spec), smollm.model.state_dict())
    assert theirs.keys() - given.keys() == {"lm_head.weight"}
    for name, tensor in given.items():
        assert torch.equal(tensor, theirs[name]), name
    assert smollm.tokenizer is not None
    assert smollm.tokenizer.chat_template == tokenizer.chat_template
    for prompt in PROMPTS:
        # We split digits apart, as the original and llama.cpp do (`tokenizer.ggml.pre`), and
        # `transformers`, here, does not; but for several blanks before them it is the same.
        assert smollm.tokenizer.encode(prompt) == tokenizer(prompt)["input_ids"]


@pytest.mark.slow
def test_the_starter_writes_what_transformers_writes(
    smollm: Bundle, smollm_of_transformers: tuple
) -> None:
    """Greedy, 64 tokens at least, ten prompts in one batch padded on the left. Both compute in
    float32 with the same weights, so nothing is left to the rounding of the quantisation."""
    model, tokenizer = smollm_of_transformers
    tokenizer.padding_side = "left"
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in PROMPTS
    ]
    batch = tokenizer(chats, return_tensors="pt", padding=True)
    options = {"do_sample": False, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
    with torch.inference_mode():
        wanted = model.generate(**batch, **options)
        found = smollm.generate(batch["input_ids"], batch["attention_mask"], **options)
    start = batch["input_ids"].shape[1]
    assert wanted.shape[1] == start + TOKENS
    assert torch.equal(found, wanted)
    assert smollm.tokenizer is not None
    assert "Paris" in smollm.tokenizer.decode(found[0, start:].tolist())
