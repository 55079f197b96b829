"""Triples written as one line and read back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring.checkpoints.growing import with_tokens
from mainspring.formulations import Inference, Limits, Setup, special_ids
from mainspring.formulations import triples as form
from mainspring.formulations.prediction import generation_options

lean = settings(max_examples=50, deadline=None, derandomize=True, database=None)

# The example of Huguet Cabot and Navigli (2021), figure 2.
TEXT = "This Must Be the Place is a song by new wave band Talking Heads, released in November 1983."
SONG, BAND = "This Must Be the Place", "Talking Heads"
LINE = (
    "<triplet> This Must Be the Place <subj> Talking Heads <obj> performer "
    "<triplet> Talking Heads <subj> new wave <obj> genre"
)
TRIPLES = [
    {"head": BAND, "type": "genre", "tail": "new wave"},
    {"head": SONG, "type": "performer", "tail": BAND},
]


def test_the_published_example() -> None:
    assert form.linearised(TEXT, TRIPLES) == LINE
    assert form.read_triples(LINE) == (list(reversed(TRIPLES)), 0)


def test_triples_of_one_head_stand_together() -> None:
    triples = [
        {"head": "a", "type": "r", "tail": "c"},
        {"head": {"text": "a", "start": 0, "end": 1}, "type": "s", "tail": "b"},
    ]
    line = form.linearised("a b c", triples)
    assert line == "<triplet> a <subj> b <obj> s <subj> c <obj> r"
    assert len(form.read_triples(line)[0]) == 2
    assert form.linearised("a b c", []) == "" and form.read_triples("") == ([], 0)


WORDS = st.text("ab 东🙂|", min_size=1, max_size=6).filter(str.strip)


@lean
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=6))
def test_what_is_written_is_read(parts) -> None:
    triples = [
        {"head": form.words(h), "type": form.words(r), "tail": form.words(t)} for h, r, t in parts
    ]
    found, lost = form.read_triples(form.linearised("a b", triples))
    assert lost == 0
    assert {tuple(t.values()) for t in found} == {tuple(t.values()) for t in triples}


@pytest.mark.parametrize(
    ("line", "kept", "lost"),
    [
        ("nothing of the kind", 0, 1),
        ("<triplet> a <subj> b", 0, 1),
        ("<triplet> a", 0, 1),
        ("<triplet> a <subj> <obj> r", 0, 1),
        ("<triplet> <subj> b <obj> r", 0, 1),
        ("<triplet> a <subj> b <obj> r <subj> c", 1, 1),
        ("<triplet> a <subj> b <obj> r <obj> s", 0, 1),
        ("<triplet> a <subj> b <obj> r <triplet> a <subj> b <obj> r", 1, 0),
        ("<obj> x <triplet> a <subj> b <obj> r", 1, 1),
    ],
)
def test_broken_lines(line: str, kept: int, lost: int) -> None:
    found, broken = form.read_triples(line)
    assert (len(found), broken) == (kept, lost)


@lean
@given(st.lists(st.sampled_from([*form.MARKS, "a", "b", " "]), max_size=15).map("".join))
def test_no_line_breaks_the_reader(line: str) -> None:
    found, lost = form.read_triples(line)
    assert all(all(part.strip() for part in triple.values()) for triple in found)
    assert lost or found or not line.strip()


def test_the_marks_are_tokens_and_broken_answers_are_counted() -> None:
    bundle = with_tokens(nano.bundle(), form.MARKS, 0)
    setup = Setup(Limits(40, 12))
    row = {"text": "Quiet river.", "relations": [{"head": "river", "type": "is", "tail": "quiet"}]}
    [example] = form.SEQUENCE_TO_SEQUENCE.encode([row], bundle.tokenizer, setup)
    assert bundle.tokenizer.tokens(example.target)[0] == "<triplet>"
    assert len([t for t in bundle.tokenizer.tokens(example.target) if t in form.MARKS]) == 3
    batch = form.SEQUENCE_TO_SEQUENCE.collate(
        [example], special_ids(bundle.tokenizer, bundle.config, bundle.spec), 0, 1
    )
    assert form.SEQUENCE_TO_SEQUENCE.losses(bundle.model, batch).isfinite().all()
    options = generation_options(bundle.generation, setup.limits, {"num_beams": 1})
    [found] = form.SEQUENCE_TO_SEQUENCE.predict(
        bundle, [{"text": row["text"]}], setup, Inference(options), lambda done: None, None
    )
    assert isinstance(found.value, list)
    assert found.counts.get("broken triples", 0) > 0 or found.value or not found.tokens
