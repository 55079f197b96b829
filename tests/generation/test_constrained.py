"""What a constrained model writes always parses and fits, whatever the model would rather say."""

import json
import re
import string
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring import spec
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.core.init import build
from mainspring.core.model import Transformer
from mainspring.errors import BadOption, Mismatch
from mainspring.generation.constrained import constrain, token_bytes
from mainspring.generation.options import GenerationOptions
from mainspring.generation.processors import Written
from mainspring.generation.search import generate, stream
from mainspring.generation.session import Conversation
from mainspring.generation.speculative import Draft

KINDS = ("byte-bpe", "unigram", "unigram and bytes")
FURTHER = 5  # logits past the vocabulary, as padded tables have them


@cache
def tokenizer(kind: str) -> Tokenizer:
    texts = [
        f'{{"{letter}1": [true, null, -1.5e3], "é日本": "a b"}}' for letter in string.printable
    ]
    size = 2400 if kind == "unigram and bytes" else 480
    lines = [*texts, "some words of a text", string.printable] * 3
    return train_tokenizer(lines, size, "unigram" if size > 480 else kind)


@cache
def model(kind: str, seed: int, crossed: bool = False) -> Transformer:
    """A random model with strong opinions."""
    width, size = 16, tokenizer(kind).vocabulary + FURTHER
    attention, feed = spec.Attention(2, 2, 8), spec.FeedForward(16, "relu")
    norm, embedding = spec.LayerNorm(), spec.TokenEmbedding(size)

    def stack(mask: spec.Mask, cross: spec.Attention | None) -> spec.Stack:
        layer = spec.Layer(attention, feed, norm, cross, mask=mask)
        return spec.Stack(width, embedding, (layer,), spec.Learned(400), norm)

    made = spec.Model(
        stack(spec.FullMask(), None) if crossed else None,
        stack(spec.CausalMask(), attention if crossed else None),
        (("vocabulary", spec.VocabularyHead(size)),),
    )
    built = build(made, seed).eval()
    built.tables["tokens"].weight.data.normal_(generator=torch.Generator().manual_seed(seed))
    return built


def write(kind: str, constraint: Any, weights: int = 0, crossed: bool = False, **more: Any) -> str:
    options = GenerationOptions(
        max_new_tokens=380, eos_token_id=1, pad_token_id=0, decoder_start_token_id=0, **more
    )
    ids = torch.tensor([[7, 8, 9]])
    made = generate(model(kind, weights, crossed), ids, None, options, constraint=constraint)
    assert made.stops[0] == "eos"
    return tokenizer(kind).decode(made.new_ids(0))


# -- schemas, each with the test of what fits it -----------------------------------------------

names = st.sampled_from(("a", "b1", "é", "a b", 'quo"te', "back\\slash"))
flat = st.one_of(
    st.just(({"type": "null"}, lambda v: v is None)),
    st.just(({"type": "boolean"}, lambda v: isinstance(v, bool))),
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).map(
        lambda ends: (
            {"type": "integer", "minimum": ends[0], "maximum": sum(ends)},
            lambda v: isinstance(v, int) and ends[0] <= v <= sum(ends),
        )
    ),
    st.tuples(st.integers(0, 3), st.integers(0, 4)).map(
        lambda ends: (
            {"type": "string", "minLength": ends[0], "maxLength": sum(ends)},
            lambda v: isinstance(v, str) and ends[0] <= len(v) <= sum(ends),
        )
    ),
    st.lists(st.sampled_from((1, "x y", None, 2.5, "日本")), min_size=1, unique=True).map(
        lambda values: ({"enum": values}, lambda v: v in values)
    ),
)


def nested(inner):
    arrays = st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
        lambda made: (
            {"type": "array", "items": made[0][0], "minItems": made[1], "maxItems": sum(made[1:])},
            lambda v: (
                isinstance(v, list)
                and made[1] <= len(v) <= sum(made[1:])
                and all(map(made[0][1], v))
            ),
        )
    )
    objects = st.dictionaries(names, inner, max_size=3).map(
        lambda fields: (
            {
                "type": "object",
                "properties": {name: schema for name, (schema, _) in fields.items()},
                "required": sorted(fields)[:2],
                "additionalProperties": False,
            },
            lambda v: (
                isinstance(v, dict)
                and set(sorted(fields)[:2]) <= set(v) <= set(fields)
                and all(fields[name][1](value) for name, value in v.items())
            ),
        )
    )
    return arrays | objects


schemas = st.recursive(flat, nested, max_leaves=4)
searches = st.sampled_from(
    (
        {},
        {"do_sample": True, "seed": 1, "top_k": 5, "temperature": 2.0},
        {"do_sample": True, "seed": 2, "top_p": 0.3},
        {"num_beams": 3},
        {"num_beams": 2, "early_stopping": True},
        {"repetition_penalty": 1.3},
    )
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    made=schemas,
    kind=st.sampled_from(KINDS),
    crossed=st.booleans(),
    seed=st.integers(0, 3),
    search=searches,
)
def test_output_parses_and_fits_the_schema(made, kind, crossed, seed, search):
    schema, fits = made
    text = write(kind, constrain(tokenizer(kind), json_schema=schema), seed, crossed, **search)
    assert fits(json.loads(text)), (schema, text)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 3), search=searches)
def test_regular_expressions_and_grammars(kind, seed, search):
    pattern = r"[a-c]{2,5}(-[0-9]{1,3}| é[xyz])\."
    assert re.fullmatch(pattern, write(kind, constrain(tokenizer(kind), regex=pattern), seed))
    grammar = 'start: sum\nsum: INT (("+" | "*") INT){1,3}\nINT: /[1-9][0-9]?/\n'
    text = write(kind, constrain(tokenizer(kind), grammar=grammar), seed, **search)
    assert re.fullmatch(r"[1-9]\d?([+*][1-9]\d?){1,3}", text)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    choices=st.lists(st.text(string.printable, min_size=1, max_size=6), min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
    crossed=st.booleans(),
    search=searches,
)
def test_one_of_the_choices_is_written_letter_for_letter(kind, choices, crossed, search):
    known = tokenizer(kind)
    # The vocabulary of words cuts off blanks at the beginning and makes one of several.
    choices = [known.decode(known.encode(text)) for text in choices]
    choices = [text for text in choices if text] or ["a"]
    assert write(kind, constrain(known, choices=choices), 0, crossed, **search) in choices


def test_the_first_word_may_come_with_its_blank():
    """SentencePiece writes " word" as one token, and the blank is not there once it is decoded."""
    known = nano.tokenizer()
    whole, text = next(
        (i, text)
        for i in range(known.vocabulary)
        if re.fullmatch("▁[a-z]+", text := known.tokens([i])[0])
    )
    text = text[1:]
    fits = constrain(known, choices=[text, text + "."]).processor(0, known.vocabulary, [1])

    def allowed(row: list[int]) -> list[int]:
        written = Written(torch.tensor([row], dtype=torch.int64), torch.tensor([0]))
        [scores] = fits(torch.zeros(1, known.vocabulary), written)
        return [i for i, score in enumerate(scores.tolist()) if score == 0]

    begun = {known.decode([i]) for i in allowed([])}
    assert whole in allowed([]) and begun <= {text[:end] for end in range(1, len(text) + 1)}
    assert [known.tokens([i]) for i in allowed([whole])] == [["</s>"], ["."]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_as_text_and_rows_that_end_at_different_times(kind):
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}}
    constraint = constrain(tokenizer(kind), json_schema=json.dumps({**schema, "maxItems": 4}))
    options = GenerationOptions(
        max_new_tokens=60,
        eos_token_id=1,
        do_sample=True,
        seed=0,
        temperature=3.0,
        num_return_sequences=4,
    )
    ids = torch.randint(5, 90, (3, 4), generator=torch.Generator().manual_seed(0))
    made = generate(model(kind, 0), ids, None, options, constraint=constraint)
    assert set(made.stops) == {"eos"} and len(set(made.tokens)) > 2
    for row in range(12):
        numbers = json.loads(tokenizer(kind).decode(made.new_ids(row)))
        assert len(numbers) <= 4 and all(0 <= number <= 99 for number in numbers)


def test_streams_conversations_and_drafts_obey_too():
    constraint = constrain(tokenizer("byte-bpe"), regex=r"(yes|no|maybe)(, [a-f]{3,6}){2}")
    options = GenerationOptions(max_new_tokens=60, eos_token_id=1)
    made, ids = model("byte-bpe", 1), [7, 8, 9]
    prompt = torch.tensor([ids])
    plain = generate(made, prompt, None, options, constraint=constraint).new_ids(0)
    assert list(stream(made, prompt, None, options, constraint=constraint)) == plain
    for draft in (Draft(made, 3), Draft(model("byte-bpe", 2), 4)):
        got = generate(made, prompt, None, options, constraint=constraint, draft=draft)
        assert got.new_ids(0) == plain
    talk = Conversation(made)
    for _ in range(2):
        assert talk.generate(ids, options, constraint=constraint).new_ids(0) == plain
    assert talk.reused == 2


def test_a_text_cut_at_the_limit_is_the_beginning_of_one_that_fits():
    constraint = constrain(tokenizer("byte-bpe"), regex="a{200}")
    options = GenerationOptions(max_new_tokens=5, eos_token_id=1, forced_eos_token_id=1)
    made = generate(model("byte-bpe", 0), torch.tensor([[7]]), None, options, constraint=constraint)
    text = tokenizer("byte-bpe").decode(made.new_ids(0))
    assert made.stops == ["length"] and set(text) == {"a"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("json_schema", {"type": "objekt"}, "`json_schema`: Invalid type: objekt"),
        (
            "json_schema",
            {"properties": {"a": {"anyOf": [{}, {"items": {"type": "strin"}}]}}},
            "`json_schema` at /properties/a/anyOf/1/items: Invalid type: strin",
        ),
        (
            "json_schema",
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "strin"}}},
            "`json_schema` at /\\$defs/x: Invalid type: strin",
        ),
        ("json_schema", {"enum": [{1}]}, "no JSON: Object of type set"),
        ("json_schema", '{"type": ', "no JSON.*line 1, column 10"),
        ("json_schema", "[1]", "must be an object"),
        ("json_schema", {"unevaluatedItems": 3}, "unevaluatedItems"),
        ("regex", "(a", "`regex`.*unclosed group"),
        ("grammar", "start: x", "`grammar`.*unknown name"),
        ("choices", [], "`choices` must be texts to choose from"),
        ("choices", ["a", ""], "none of them empty"),
    ],
)
def test_what_is_wrong_with_a_constraint_is_said(option, value, said):
    with pytest.raises(BadOption, match=f"(?s){said}"):
        constrain(tokenizer("unigram"), **{option: value})


def test_what_does_not_go_together_is_said():
    known = tokenizer("byte-bpe")
    with pytest.raises(BadOption, match="give one of"):
        constrain(known)
    with pytest.raises(BadOption, match="given: regex, grammar"):
        constrain(known, regex="a", grammar="start: /a/")
    prompt, made = torch.tensor([[7]]), model("byte-bpe", 0)
    constraint = constrain(known, regex="ab")
    with pytest.raises(BadOption, match="`eos_token_id`"):
        generate(made, prompt, None, GenerationOptions(), constraint=constraint)
    options = GenerationOptions(eos_token_id=1, min_new_tokens=9)
    with pytest.raises(BadOption, match="leave no token"):
        generate(made, prompt, None, options, constraint=constraint)


def test_a_vocabulary_that_cannot_spell_the_constraint():
    constraint = constrain(tokenizer("unigram"), regex="Ω")
    with pytest.raises(Mismatch, match=r"no token|cannot be followed"):
        write("unigram", constraint)


def test_tokens_spell_the_texts_they_were_cut_from():
    for kind in KINDS:
        known = tokenizer(kind)
        spelled = token_bytes(known.backend)
        for text in ("a b", '{"é日": "a b"}', "x\ty [1, 2]"):
            ids = [i for i in known.encode(text) if i != known.eos_id]
            assert b"".join(spelled[i] for i in ids).decode().strip(" ") == text
