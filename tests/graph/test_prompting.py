"""Triples by prompt: whatever a model would rather write, its answers are pieces of the passage."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring.checkpoints.bundle import Bundle, new_bundle
from mainspring.checkpoints.tokenizer import CONFIG, Tokenizer, train_tokenizer
from mainspring.errors import BadOption, Mismatch
from mainspring.families.llama import FAMILY
from mainspring.graph import prompting
from mainspring.graph.prompting import by_prompt, complete

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@cache
def chatty(seed: int) -> Bundle:
    """A random chat model, in bytes."""
    plain = train_tokenizer(
        [prompting.INSTRUCTION, prompting.EXAMPLE, '{"head": "a"}'] * 3, 420, "byte-bpe"
    )
    template = {CONFIG: json.dumps({"chat_template": TEMPLATE}).encode()}
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    small |= {"num_key_value_heads": 2, "num_hidden_layers": 1, "head_dim": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILY.sizes, "llama-nano", {**FAMILY.sizes["llama-tiny"], **small})
        bundle = new_bundle("llama-nano", plain, seed)
    bundle.model.requires_grad_(False)
    for parameter in bundle.model.parameters():
        parameter.mul_(3)  # strong opinions
    return Bundle(
        bundle.model,
        bundle.config,
        bundle.family,
        Tokenizer(plain.backend, plain.special, template),
        bundle.generation,
    )


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.sampled_from(
        [
            "Marie Curie was born in Warsaw.",
            'She said "no" \\ and\nleft \x01 Zürich.',
            "居里 认识 华沙。",
            "a",
            "\n \x01",
        ]
    ),
    st.sampled_from([(), ("born in",), ("a", "lebt in Zürich")]),
    st.integers(0, 3),
)
def test_every_end_is_a_piece_of_the_passage(
    passage: str, names: tuple[str, ...], seed: int
) -> None:
    [found] = by_prompt(chatty(seed), names)([passage])
    for relation in found.relations:
        for end in (relation.head, relation.tail):
            assert passage[end.start : end.end] == end.text and end.text.strip()
        assert not names or relation.name in names
        assert relation.score is not None and 0 <= relation.score <= 1


def allowed(passage: str, head: str, name: str, tail: str, names: tuple[str, ...] = ()) -> bool:
    """Whether the grammar lets this one triple be the whole answer, byte by byte."""
    import llguidance

    tokenizer = llguidance.LLTokenizer("byte")
    grammar = llguidance.LLMatcher.grammar_from_lark(prompting.grammar(passage, names))
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    text = json.dumps([{"head": head, "type": name, "tail": tail}], ensure_ascii=False)
    return bool(matcher.consume_tokens(list(text.encode())) and matcher.is_accepting())


ENGLISH = "Marie Curie was born in Warsaw; AT&T's lab is in Sankt-Gallen."
MIXED = "马云创立了阿里巴巴，Jack Ma 住在杭州。"


@pytest.mark.parametrize(
    ("passage", "head", "name", "tail", "is_allowed"),
    [
        (ENGLISH, "Marie Curie", "born in", "Warsaw", True),
        (ENGLISH, "AT&T's lab", "is in", "Sankt-Gallen", True),
        (ENGLISH, "Mari", "born in", "Warsaw", False),
        (ENGLISH, "Curie", "born in", "arsaw", False),
        (ENGLISH, "Marie Warsaw", "born in", "Curie", False),
        (ENGLISH, "Marie Curie", "创立", "Warsaw", False),
        (MIXED, "马云", "founded", "阿里巴巴", True),
        (MIXED, "马云", "创立", "阿里巴巴", True),
        (MIXED, "Jack Ma", "住在", "杭州", True),
        (MIXED, "Jack M", "住在", "杭州", False),
        (MIXED, "马化腾", "创立", "阿里巴巴", False),
        (MIXED, "马云", "创立了一家很大的公司", "阿里巴巴", False),
        ("दिल्ली भारत में है", "दिल्ली", "capital of", "भारत", True),
        ("दिल्ली भारत में है", "दि", "capital of", "भारत", False),
    ],
)
def test_ends_are_words_or_characters_where_there_are_no_blanks(
    passage: str, head: str, name: str, tail: str, is_allowed: bool
) -> None:
    assert allowed(passage, head, name, tail) == is_allowed


def test_names_that_are_given_are_the_only_ones() -> None:
    names = ("born in", "创立")
    assert allowed(MIXED, "马云", "创立", "阿里巴巴", names)
    assert not allowed(MIXED, "马云", "founded", "阿里巴巴", names)


def test_answers_that_are_cut_keep_what_is_whole() -> None:
    whole = '[{"head": "a", "type": "is", "tail": "b"}, {"head": "a", "type": "i'
    assert complete(whole) == [{"head": "a", "type": "is", "tail": "b"}]
    assert complete("[]") == complete("") == []


def test_what_cannot_answer_is_refused() -> None:
    with pytest.raises(Mismatch, match="need a chat model, such as `starter`"):
        by_prompt(nano.bundle())
    with pytest.raises(BadOption, match="may hold no quotes"):
        by_prompt(chatty(0), ['born "in"'])
