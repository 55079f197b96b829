"""The best tags under the rules, held against trying out all sequences."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.entities import repair_tags
from mainspring.formulations.tagging import best_labels, broken_rules, rules_of

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")
BIOES = ("O", "B-X", "I-X", "E-X", "S-X")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([BIO, BIOES]),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.sampled_from([None, 0, 1, 2]),
    st.booleans(),
)
def test_no_allowed_sequence_is_better(labels, count, seed, before, ends) -> None:
    rules = rules_of(labels)
    scores = np.random.default_rng(seed).normal(size=(count, len(labels)))
    found = best_labels(scores, rules, before, ends=ends)

    def allowed(path) -> bool:
        kept = broken_rules(np.array(path), rules, before) == 0
        return kept and (not ends or bool(rules.last[path[-1]]))

    ways = [p for p in itertools.product(range(len(labels)), repeat=count) if allowed(p)]
    best = max(ways, key=lambda path: scores[range(count), path].sum())
    assert tuple(found) == best


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 4), min_size=1))
def test_what_keeps_the_rules_needs_no_repair(path) -> None:
    tags = [BIO[i] for i in path]
    broken = broken_rules(np.array(path), rules_of(BIO))
    assert broken == len(repair_tags(tags)[1])


def test_labels_that_begin_nothing_have_no_rules() -> None:
    for labels in (("O", "PER"), ("O", "B-X", "I-X", "I-Y"), ("I-X", "O")):
        assert rules_of(labels).follows.all()
    scores = np.log(np.array([[0.1, 0.9], [0.8, 0.2]]))
    assert best_labels(scores, rules_of(("O", "I-X"))).tolist() == [1, 0]


@pytest.mark.parametrize("ends", [True, False])
def test_nothing_to_decide(ends: bool) -> None:
    empty = np.zeros((0, 5))
    assert best_labels(empty, rules_of(BIO), ends=ends).tolist() == []
    assert broken_rules(np.array([], dtype=np.int64), rules_of(BIO)) == 0
