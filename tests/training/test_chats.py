"""`fit generate` on prompts with answers and on conversations: what is learnt, from which start."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import mainspring
import nano
from mainspring import events
from mainspring.checkpoints.bundle import load
from mainspring.checkpoints.chat import ROLES
from mainspring.checkpoints.growing import with_conversations
from mainspring.errors import BadData, BadOption

ONLY_IN_ANSWERS = "Ωmega"
OPTIONS: dict[str, Any] = {"steps": 2, "batch_tokens": 400, "evaluate_every": 2}


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [nano.sentence(draw) for _ in range(count)]


def turns(n: int, user: str, assistant: str) -> list[dict[str, str]]:
    said = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return said * (1 + n % 2)


ASKED = sentences(40, 1)
ANSWERED = [f"{ONLY_IN_ANSWERS} {text}" for text in sentences(40, 2)]
PAIRS = [{"prompt": a, "response": b} for a, b in zip(ASKED, ANSWERED, strict=True)]
CHATS = [{"messages": turns(n, a, b)} for n, (a, b) in enumerate(zip(ASKED, ANSWERED, strict=True))]
ALPACA = [
    {"instruction": a, "input": "", "output": b, "text": f"Below is a task. {a} {b}"}
    for a, b in zip(ASKED, ANSWERED, strict=True)
]


def fitted(rows: list[dict[str, Any]], tmp_path: Path, **options: Any) -> tuple[Path, list[Any]]:
    seen: list[Any] = []
    data = nano.write_jsonl(rows, tmp_path / "rows.jsonl")
    with events.listening(seen.append):
        mainspring.fit("generate", data, out=tmp_path / "out", **OPTIONS, **options)
    return tmp_path / "out", seen


def preflight(seen: list[Any]) -> dict[str, str]:
    [block] = [e for e in seen if isinstance(e, events.Block) and e.title.startswith("Pre")]
    return dict(block.lines)


@pytest.mark.parametrize("rows", [PAIRS, CHATS, ALPACA], ids=["pairs", "chats", "alpaca"])
def test_a_new_tokenizer_learns_from_answers_too(rows: list[Any], tmp_path: Path) -> None:
    out, _ = fitted(rows, tmp_path, from_scratch="llama-tiny", vocabulary=300)
    tokenizer = load(out).tokenizer
    assert tokenizer is not None
    assert tokenizer.unk_id not in tokenizer.encode(ONLY_IN_ANSWERS)


def test_instructions_and_answers_are_preferred_to_the_text_made_of_them(tmp_path: Path) -> None:
    out, seen = fitted(ALPACA, tmp_path, from_scratch="llama-tiny", vocabulary=300)
    assert "instruction → text" in preflight(seen)["task"]
    assert "output → target" in preflight(seen)["task"]
    told = [e.text for e in seen if isinstance(e, events.Note) and "--text text" in e.text]
    assert len(told) == 1
    data, again, other = tmp_path / "rows.jsonl", [], tmp_path / "other"
    with events.listening(again.append):
        mainspring.fit("generate", data, out=other, model=str(out), text="text", steps=1)
    assert preflight(again)["task"].split() == ["generate", "text", "→", "text"]


def test_a_new_model_holds_conversations_as_transformers_lays_them_out(tmp_path: Path) -> None:
    out, seen = fitted(CHATS, tmp_path, from_scratch="llama-tiny", vocabulary=300)
    bundle = load(out)
    assert bundle.tokenizer is not None
    theirs = AutoTokenizer.from_pretrained(out)
    for row in CHATS[:4]:
        messages = row["messages"][:-1]
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert bundle.tokenizer.chat(messages, answer=True) == text
        ids = theirs(text, add_special_tokens=False).input_ids
        assert bundle.tokenizer.encode(text, special=False) == ids
        marks = [bundle.tokenizer.id_of(role) for role in ROLES]
        assert ids.count(marks[1]) == sum(m["role"] == "user" for m in messages)
    # What is learnt begins behind the mark of the assistant and ends with the end token.
    shown = preflight(seen)["loss on"]
    learnt = shown.partition("■")[2].partition("░")[0].split()
    assert learnt[0] == "▁" or learnt[0].startswith(("▁", ONLY_IN_ANSWERS[0]))
    assert learnt[-1] == "</s>" and "<|user|>" not in learnt
    [row] = mainspring.run("generate", ASKED[0], model=str(out), max_new_tokens=4)
    assert "<|" not in row["generated_text"]
    talks = [
        {"messages": [{"role": "user", "content": ASKED[0]}]},
        {
            "conversations": [
                {"from": "human", "value": ASKED[0]},
                {"from": "chatgpt", "value": "x"},
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED[0]}]}]},
    ]
    for number, talk in enumerate(talks):
        file = nano.write_jsonl([talk], tmp_path / f"{number}.jsonl")
        [told] = mainspring.run("generate", file, model=str(out), max_new_tokens=4)
        assert told["generated_text"] == row["generated_text"] and told.items() >= talk.items()
    found = mainspring.evaluate("generate", tmp_path / "rows.jsonl", model=str(out), samples="0")
    assert found.rows == len(CHATS) and 0 < found.scores["bits_per_byte"] < 20


CALLS = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


@pytest.mark.parametrize(
    ("messages", "learning", "reason"),
    [
        ([{"role": "user", "content": "Hi"}], True, "no answer"),
        ([{"role": "assistant", "content": "Hi"}], False, "no question"),
        ([{"role": "user", "content": "Hi"}, CALLS], False, "call of a tool"),
        ([], True, "empty conversation"),
        ([{"role": "user", "content": [{"type": "image"}]}], False, "wrong type"),
    ],
)
def test_conversations_that_cannot_be_used_are_listed(
    messages: list[Any], learning: bool, reason: str, tmp_path: Path
) -> None:
    file = nano.write_jsonl([{"messages": messages}], tmp_path / "a.jsonl")
    nano.decoder().save(tmp_path / "model")
    verb = mainspring.evaluate if learning else mainspring.run
    with pytest.raises(BadData, match=f"no usable row: 1 {reason}"):
        verb("generate", file, model=str(tmp_path / "model"))


@pytest.mark.parametrize("lora", [None, 4])
def test_a_model_without_a_template_is_given_one(lora: int | None, tmp_path: Path) -> None:
    base = tmp_path / "base"
    texts = [*ASKED, *ANSWERED, *ROLES]
    from mainspring.checkpoints.tokenizer import train_tokenizer
    from mainspring.families.llama import FAMILY as LLAMA

    words = train_tokenizer(texts, 400, "byte-bpe", LLAMA.tokens)
    nano.decoder(tokenizer=words).save(base)
    out, seen = fitted(CHATS, tmp_path, model=str(base), lora=lora)
    assert any("no chat template" in e.text for e in seen if isinstance(e, events.Note))
    tokenizer = load(out).tokenizer
    assert tokenizer is not None and tokenizer.chat_template is not None
    assert (tokenizer.id_of(ROLES[0]) is None) == (lora is not None)
    [row] = mainspring.run("generate", "quiet river", model=str(out), max_new_tokens=4)
    assert row["tokens"] >= 1


def test_marks_that_an_adapter_cannot_spell_are_refused() -> None:
    bundle = nano.decoder()
    with pytest.raises(BadOption, match="leave --lora out"):
        with_conversations(bundle, 1, spelt=True)
    given = with_conversations(bundle, 1, spelt=False)
    assert given.tokenizer is not None and given.tokenizer.chat_template is not None
    assert with_conversations(given, 1, spelt=True) is given


def test_what_the_limits_take_is_told_before_training(tmp_path: Path) -> None:
    long = [{"prompt": row["prompt"], "response": f"{row['response']} " * 40} for row in PAIRS[:30]]
    rows = [*PAIRS[30:], *long]
    _, seen = fitted(rows, tmp_path, from_scratch="llama-tiny", vocabulary=300, max_target=64)
    told = preflight(seen)["pieces"]
    assert re.fullmatch(r"\d+ of at most \d+ tokens; \d+ lose text, [\d,]+ tokens beyond .*", told)
    assert int(told.split("; ")[1].split()[0]) >= 25
