"""ROUGE: the library's own numbers, worked examples, and other scripts."""

import json
from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from mainspring.errors import BadOption
from mainspring.metrics import rouge
from mainspring.metrics.baselines import lead
from mainspring.text import sentence_texts

SINGLE_SENTENCES = [
    ("the cat was under the bed", "the cat was found under the bed"),
    ("Running dogs quickly jumped", "The dog was running; it jumps quick"),
    ("", "something"),
    ("something", ""),
    ("exactly the same words", "exactly the same words"),
]


@pytest.mark.parametrize(("prediction", "reference"), SINGLE_SENTENCES)
def test_english_is_scored_as_the_library_does(prediction: str, reference: str) -> None:
    library = RougeScorer(list(rouge.NAMES), use_stemmer=True).score(reference, prediction)
    ours = rouge.score_row(prediction, reference)
    assert ours == {name: 100 * library[name].fmeasure for name in rouge.NAMES}


def test_real_english_is_scored_as_the_library_does(shared_data: Path) -> None:
    file = shared_data / "summarization" / "scitldr_a" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:40]]
    library = RougeScorer(list(rouge.NAMES), use_stemmer=True)
    for row in rows:
        prediction, reference = lead(row["document"], 3), row["summary"]
        split = ["\n".join(sentence_texts(text)) for text in (reference, prediction)]
        expected = {name: 100 * s.fmeasure for name, s in library.score(*split).items()}
        assert rouge.score_row(prediction, reference) == expected


def test_worked_example_of_the_rouge_paper() -> None:
    """Lin 2004, section 3: "police kill the gunman" has ROUGE-L 3/4 and 2/4 for these two."""
    reference = "police killed the gunman"
    first = rouge.score_row("police kill the gunman", reference, "unicode")
    second = rouge.score_row("the gunman kill police", reference, "unicode")
    assert (first["rougeL"], second["rougeL"]) == (75, 50)
    # Both share one bigram, "the gunman": ROUGE-2 cannot tell them apart.
    assert first["rouge2"] == second["rouge2"] == pytest.approx(100 / 3)
    # With the stemmer, kill and killed are one word.
    assert rouge.score_row("police kill the gunman", reference)["rougeL"] == 100


def test_worked_example_of_summary_level_lcs() -> None:
    """Lin 2004, section 3.2: w1..w5 against "w1 w2 w6 w7 w8" and "w1 w3 w8 w9 w5": union 4 of 5."""
    reference = "w1 w2 w3 w4 w5"
    scores = rouge.score_row("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", reference)
    recall, precision = 4 / 5, 4 / 10
    assert scores["rougeLsum"] == pytest.approx(100 * 2 * recall * precision / (recall + precision))


def test_order_of_sentences_matters_to_l_and_not_to_lsum() -> None:
    reference = "The cat sat on the mat. A dog barked at birds."
    scores = rouge.score_row("A dog barked at birds. The cat sat on the mat.", reference)
    assert scores["rougeLsum"] == 100
    assert scores["rougeL"] < 60
    assert scores["rouge1"] == 100


def test_chinese_is_scored_by_character() -> None:
    scores = rouge.score_row("我爱北京", "我爱上海", "unicode")
    assert (scores["rouge1"], scores["rougeL"]) == (50, 50)
    assert scores["rouge2"] == pytest.approx(100 / 3)
    assert rouge.score_row("我爱北京", "我爱上海", "ascii")["rouge1"] == 0
    russian = rouge.score_row("привет мир", "привет всем", "unicode")
    assert russian["rouge1"] == 50


def test_the_way_to_tell_words_is_chosen_by_the_references() -> None:
    assert rouge.choose_kind(["plain words", "and a naïve one " * 9]) == "unicode"
    assert rouge.choose_kind(["plain words " * 50, "one café"]) == "ascii"
    assert rouge.choose_kind(["我爱上海"]) == "unicode"
    assert rouge.choose_kind(["Die Größe der Straße"]) == "unicode"


def test_the_best_of_several_references() -> None:
    scores = rouge.score_row("a b c", ["x y z", "a b d"])
    assert scores == rouge.score_row("a b c", "a b d")
    with pytest.raises(BadOption, match="at least one reference"):
        rouge.score_row("a", [])


def test_signature_names_every_choice() -> None:
    for tokens, stemmer in (("ascii", "stemmer:yes"), ("unicode", "stemmer:no")):
        line = rouge.METRIC.signature(tokens)
        assert line.startswith("rouge_score 0.1.2 | ")
        assert stemmer in line
        assert f"tokens:{tokens}" in line
        assert "split:sentencex" in line


def test_unknown_tokens() -> None:
    with pytest.raises(BadOption, match="did you mean `unicode`"):
        rouge.score_row("a", "b", "unicod")


def test_lead_on_real_data(shared_data: Path) -> None:
    """The lead sentence of the Debian test split scores ROUGE-L 27.3."""
    file = shared_data / "summarization" / "debian_synopsis_en" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    references = [row["summary"] for row in rows]
    tokens = rouge.METRIC.choose_kind(references)
    predictions = [rouge.METRIC.baselines["lead-1"]({"text": row["document"]}, {}) for row in rows]
    scores = rouge.METRIC.score_rows(predictions, references, tokens)
    assert tokens == "ascii"
    assert np.mean([row["rougeL"] for row in scores]) == pytest.approx(27.3, abs=0.2)


def test_chinese_real_data_is_not_zero(shared_data: Path) -> None:
    file = shared_data / "summarization" / "csl_zh" / "validation.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    references = [row["summary"] for row in rows]
    tokens = rouge.choose_kind(references)
    scores = rouge.score_rows([lead(row["document"]) for row in rows], references, tokens)
    assert tokens == "unicode"
    assert np.mean([row["rouge1"] for row in scores]) > 25
