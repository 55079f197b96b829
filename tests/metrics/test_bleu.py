import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from mainspring.errors import BadOption
from mainspring.metrics.intervals import compare_scores, score_intervals
from mainspring.metrics.translation import METRIC, choose_kind, combine, score_rows, signature

ZH = ["他们在城里的一家中文学校读书。", "我不知道。", "汤姆昨天买了三本书,对吗?"]
JA = ["これはペンです。", "私は昨日東京へ行きました。"]


def corpus(hypotheses: Sequence[str], references: Sequence[str], tokens: str) -> dict[str, float]:
    return {
        "bleu": BLEU(tokenize=tokens).corpus_score(hypotheses, [references]).score,
        "chrf2": CHRF().corpus_score(hypotheses, [references]).score,
    }


WORDS = st.sampled_from(
    ["the", "a", "cat", "sat", "mat,", ".", "3.5", "it's", "über", "猫", "坐", "😀"]
)
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.sampled_from(["13a", "zh"]))
def test_scores_are_those_of_sacrebleu(pairs: list[tuple[str, str]], tokens: str) -> None:
    hypotheses, references = (list(side) for side in zip(*pairs, strict=True))
    ours = METRIC.scores(score_rows(hypotheses, references, tokens))
    assert ours == pytest.approx(corpus(hypotheses, references, tokens), abs=1e-9)


def test_scores_of_rows_scored_one_by_one() -> None:
    hypotheses = ["the cat sat on a mat", "no", "a dog barks at the moon tonight"]
    references = ["the cat sat on the mat", "yes", "a dog barked at the moon tonight"]
    rows = [
        row
        for h, r in zip(hypotheses, references, strict=True)
        for row in score_rows([h], [r], "13a")
    ]
    assert METRIC.scores(rows) == pytest.approx(corpus(hypotheses, references, "13a"), abs=1e-9)


def test_several_references_count_as_in_sacrebleu() -> None:
    hypotheses = ["the cat sat on the mat", "he went home early today"]
    streams = [["a cat sat on the mat", "he left early"], ["the cat sat there", "he went home now"]]
    rows = score_rows(hypotheses, list(zip(*streams, strict=True)), "13a")
    assert METRIC.scores(rows) == pytest.approx(
        {
            "bleu": BLEU().corpus_score(hypotheses, streams).score,
            "chrf2": CHRF().corpus_score(hypotheses, streams).score,
        },
        abs=1e-9,
    )
    with pytest.raises(BadOption, match="at least one reference"):
        score_rows(["a"], [[]], "13a")


def test_the_tokenizer_follows_the_script() -> None:
    assert choose_kind(["The cat.", "Die Katze läuft.", "Кошка."]) == "13a"
    assert choose_kind(ZH) == "zh"
    assert choose_kind(JA) in ("ja-mecab", "char")
    assert choose_kind(["ฉันรักเธอมาก"]) == "char"
    assert choose_kind(["Tom says 你好"]) == "13a"
    assert choose_kind([]) == "13a"
    assert choose_kind(iter(["Hi."] * 9 + ZH * 40)) == "zh"  # each is seen once
    # The standard tokenizer takes what stands between Chinese punctuation for one word.
    shifted = [text[1:] for text in ZH]
    standard, chinese = (METRIC.scores(score_rows(shifted, ZH, t))["bleu"] for t in ("13a", "zh"))
    assert standard < chinese - 20
    with pytest.raises(BadOption, match="tokenizer of BLEU"):
        score_rows(["a"], ["a"], "14a")


def test_the_signature_is_sacrebleus() -> None:
    bleu, chrf = BLEU(tokenize="zh"), CHRF()
    bleu.corpus_score(ZH, [ZH])
    chrf.corpus_score(ZH, [ZH])
    assert signature("zh") == f"bleu {bleu.get_signature()} | chrf2 {chrf.get_signature()}"
    assert "tok:zh" in signature("zh") and "tok:13a" in signature()


def test_perfect_and_empty_translations() -> None:
    assert METRIC.scores(score_rows(ZH, ZH, "zh")) == pytest.approx({"bleu": 100, "chrf2": 100})
    assert METRIC.scores(score_rows(["", ""], ["a b", "c d"], "13a")) == {"bleu": 0, "chrf2": 0}
    assert METRIC.baselines["copy"]({"text": "as it is"}, {}) == "as it is"


def test_intervals_and_paired_tests_resample_the_corpus_scores() -> None:
    draw = random.Random(0)
    references = [" ".join(draw.choices("abcdefgh", k=9)) for _ in range(40)]
    good = [r if draw.random() < 0.7 else r[::-1] for r in references]
    bad = [r if draw.random() < 0.2 else r[::-1] for r in references]
    rows, worse = (score_rows(texts, references, "13a") for texts in (good, bad))
    scores = METRIC.scores(rows)
    for name, (low, high) in score_intervals(rows, combine, resamples=200).items():
        assert low < scores[name] < high
    found = compare_scores(rows, worse, combine, shuffles=199)
    for name, difference in found.items():
        assert difference.mean == pytest.approx(scores[name] - METRIC.scores(worse)[name])
        assert difference.p < 0.05
    same = compare_scores(rows, rows, combine, shuffles=99)
    assert all(difference.mean == 0 and difference.p == 1 for difference in same.values())


@pytest.mark.parametrize(("name", "language"), [("tatoeba_en_zh", "zh"), ("debian_en_de", "de")])
def test_copying_real_sources(shared_data: Path, name: str, language: str) -> None:
    file = shared_data / "translation" / name / "test.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:200]]
    sources, references = ([line[side] for line in lines] for side in ("en", language))
    tokens = choose_kind(references)
    assert tokens == {"zh": "zh", "de": "13a"}[language]
    ours = METRIC.scores(score_rows(sources, references, tokens))
    assert ours == pytest.approx(corpus(sources, references, tokens), abs=1e-9)
