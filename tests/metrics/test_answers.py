"""EM and F1 of answers: published worked examples, the rules written out a second time, and the
published human scores."""

import re
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.data.questions import questions
from mainspring.data.readers import read_rows
from mainspring.data.skipped import SkipLog
from mainspring.metrics.answers import (
    CMRC,
    CMRC_2,
    METRIC,
    SQUAD_1,
    SQUAD_2,
    choose_kind,
    score_row,
)
from mainspring.metrics.baselines import likeliest_sentence

lean = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def scores(predictions: list[str], texts: list[list[str]], kind: str) -> dict[str, float]:
    references = [[{"text": text, "start": None} for text in row] for row in texts]
    return METRIC.scores(METRIC.score_rows(predictions, references, kind))


# -- published worked examples ---------------------------------------------------------------------

# The metric cards of SQuAD and SQuAD v2 of the `datasets` library.
CARD = (
    ["1976", "Beyonce", "climate change"],
    [["1976"], ["Beyoncé and Bruno Mars"], ["climate change"]],
)


def test_the_examples_of_the_metric_cards() -> None:
    assert scores(["1976"], [["1976"]], SQUAD_1) == {"exact": 100.0, "f1": 100.0}
    assert scores(["1999"], [["1976"]], SQUAD_1) == {"exact": 0.0, "f1": 0.0}
    assert scores(*CARD, SQUAD_1) == pytest.approx(
        {"exact": 66.66666666666667, "f1": 66.66666666666667}
    )
    found = scores(*CARD, SQUAD_2)
    assert found["exact"] == found["HasAns_exact"] == pytest.approx(66.66666666666667)
    assert found["f1"] == found["HasAns_f1"] == pytest.approx(66.66666666666667)


def test_normalisation() -> None:
    """Lower case, no punctuation, no articles, single blanks (section 6.1 of the paper)."""
    assert scores(["The  Denver Broncos!"], [["denver broncos"]], SQUAD_1)["exact"] == 100
    assert scores(["U.S."], [["us"]], SQUAD_1)["exact"] == 100
    assert scores(["theatre"], [["atre"]], SQUAD_1)["f1"] == 0
    # Two of three words, two of two: precision 2/3, recall 1.
    assert scores(["in October 1973"], [["October 1973"]], SQUAD_1)["f1"] == pytest.approx(80)


def test_the_best_of_several_answers_counts() -> None:
    answers = ["October 1973", "October", "1973"]
    assert score_row("october", answers, SQUAD_1) == {"exact": 100, "f1": 100}
    assert score_row("in 1973", answers, SQUAD_1) == pytest.approx({"exact": 0, "f1": 200 / 3})


def test_no_answer_is_met_by_none_alone() -> None:
    texts: list[list[str]] = [[], [], ["a"], ["Paris"]]
    found = scores(["", "Paris", "", "paris"], texts, SQUAD_2)
    assert found["NoAns_exact"] == found["NoAns_f1"] == 50
    # "a" is an article: nothing of it is left, so that no answer meets it.
    assert found["HasAns_exact"] == 100 and found["exact"] == 75


def test_chinese_answers_by_characters() -> None:
    assert score_row("光荣和ω-force", ["光荣和ω-force"], CMRC) == {"exact": 100, "f1": 100}
    # 公司光荣 | 光荣和 omega: 2 of 4 pieces, 2 of 4.
    assert score_row("公司光荣", ["光荣和omega"], CMRC)["f1"] == pytest.approx(50)
    # The longest run counts, not every shared character.
    assert score_row("北大京学", ["北京大学"], CMRC)["f1"] == pytest.approx(25)
    assert score_row("《战国无双3》。", ["战国无双3"], CMRC)["exact"] == 100
    assert scores(["", "北京"], [[], ["北京"]], CMRC_2)["NoAns_exact"] == 100


def test_the_rules_are_chosen_by_script_and_by_whether_all_have_answers() -> None:
    english, chinese = [{"text": "in 1973"}], [{"text": "光荣和ω-force"}]
    assert choose_kind([english]) == SQUAD_1
    assert choose_kind([english, []]) == SQUAD_2
    assert choose_kind([chinese]) == CMRC
    assert choose_kind([chinese, []]) == CMRC_2
    assert choose_kind(iter([english] * 2_000 + [[]])) == SQUAD_2
    assert choose_kind(iter([[]] + [english] * 2_000)) == SQUAD_2
    assert "rules of cmrc 2018 | words: nltk" in METRIC.signature(CMRC)
    assert METRIC.signature(SQUAD_1).startswith("rules of squad 1.1 |")


# -- the rules, written out a second time ----------------------------------------------------------


def plain_squad(prediction: str, answers: list[str]) -> tuple[float, float]:
    def normal(text: str) -> str:
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1(answer: str) -> float:
        ours, theirs = normal(prediction).split(), normal(answer).split()
        same = sum((Counter(ours) & Counter(theirs)).values())
        if same == 0:
            return 0.0
        precision, recall = same / len(ours), same / len(theirs)
        return 2 * precision * recall / (precision + recall)

    exact = max(normal(prediction) == normal(answer) for answer in answers)
    return 100.0 * exact, 100.0 * max(map(f1, answers))


words = st.text(alphabet="ab .,'A-", max_size=12) | st.sampled_from(
    ["the a", "an", "The cat", "a b"]
)


@given(words, st.lists(words, min_size=1, max_size=3))
@lean
def test_squad_rules_written_out(prediction: str, answers: list[str]) -> None:
    found = score_row(prediction, answers, SQUAD_1)
    assert (found["exact"], found["f1"]) == pytest.approx(plain_squad(prediction, answers))


@given(st.text("北京大学a1，", max_size=8), st.text("北京大学a1，", min_size=1, max_size=8))
@lean
def test_cmrc_rules_written_out(prediction: str, answer: str) -> None:
    def pieces(text: str) -> list[str]:
        return re.findall("[\u4e00-\u9fa5]|[a1]+", text.replace("，", ""))

    def run(a: list[str], b: list[str]) -> int:
        sizes = range(len(a), 0, -1)
        parts = (a[i : i + n] for n in sizes for i in range(len(a) - n + 1))
        return next(
            (len(p) for p in parts if any(b[i : i + len(p)] == p for i in range(len(b)))), 0
        )

    ours, theirs = pieces(prediction), pieces(answer)
    same = run(ours, theirs)
    wanted = 200 * same / (len(ours) + len(theirs)) if same else 0.0
    assert score_row(prediction, [answer], CMRC)["f1"] == pytest.approx(wanted)


# -- real data -------------------------------------------------------------------------------------


def test_people_score_what_is_published(shared_data: Path) -> None:
    """One person's answers held against the others' (section 6.3 of the paper): 82.304 and 91.221
    on the leaderboard of SQuAD 1.1, whose test set is like the development set."""
    rows = []
    with SkipLog() as skipped:
        for row in read_rows(shared_data / "qa" / "squad_v1.1" / "dev-v1.1.json", skipped):
            for question in questions(row):
                texts = [answer["text"] for answer in question.values["answers"]]
                if len(texts) > 1:
                    rows.append(score_row(texts[1], [texts[0], *texts[2:]], SQUAD_1))
    exact, f1 = (sum(row[name] for row in rows) / len(rows) for name in ("exact", "f1"))
    assert (exact, f1) == pytest.approx((82.304, 91.221), abs=1.0)


# -- the baseline ----------------------------------------------------------------------------------


def test_the_likeliest_sentence() -> None:
    text = "It rained. The river is in the north. A bridge crosses the river in town."
    assert likeliest_sentence("Where is the river?", text) == "The river is in the north."
    assert likeliest_sentence("它在哪里？", "今天下雨。它在北京。") == "它在北京。"
    assert likeliest_sentence("Who?", "") == ""
    assert (
        METRIC.baselines["likeliest sentence"]({"question": "q", "context": "a b."}, {}) == "a b."
    )
