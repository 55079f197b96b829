"""Exact match and F1 of answers, by the rules of the data sets' own scripts.

- SQuAD 1.1 (Rajpurkar et al., 2016): lower case, no punctuation, no articles; F1 over words, best
  of several answers.
- SQuAD 2.0 (Rajpurkar et al., 2018): the same, where a question may have no answer, which only no
  answer meets; scores also for both kinds of question apart (`HasAns_`, `NoAns_`).
- CMRC 2018 (Cui et al., 2019), for Chinese: no punctuation; F1 over the longest common run of
  characters, words of other scripts kept whole.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from mainspring.metrics import Metric, Statistics
from mainspring.metrics.baselines import likeliest_sentence
from mainspring.text import language_of

SQUAD_1, SQUAD_2, CMRC, CMRC_2 = "squad 1.1", "squad 2.0", "cmrc 2018", "cmrc 2018, no answers too"
TOLD_FROM = 2_000  # characters of answers whose script is looked at
WITHOUT_ANSWERS = (SQUAD_2, CMRC_2)

Answers = Sequence[Mapping[str, Any]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")
# What the script of CMRC 2018 takes for punctuation.
_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def choose_kind(references: Iterable[Answers]) -> str:
    """The rules that suit a data set: by the script of its answers, and whether all have one."""
    texts, all_answered = "", True
    for answers in references:
        if not answers:
            all_answered = False
        elif len(texts) < TOLD_FROM:
            texts += answers[0]["text"]
        elif not all_answered:
            break
    chinese = language_of(texts) in ("zh", "ja")
    if all_answered:
        return CMRC if chinese else SQUAD_1
    return CMRC_2 if chinese else SQUAD_2


def score_rows(
    predictions: Sequence[str], references: Sequence[Answers], kind: str
) -> list[Statistics]:
    """`exact` and `f1` of each row, 0..100, the best over its answers; where questions may have no
    answer also their parts for both kinds of question."""
    rows = []
    for prediction, answers in zip(predictions, references, strict=True):
        row = score_row(prediction, [answer["text"] for answer in answers], kind)
        if kind in WITHOUT_ANSWERS:
            side = "HasAns" if answers else "NoAns"
            row |= {side: 100.0, f"{side}_exact": row["exact"], f"{side}_f1": row["f1"]}
        rows.append(row)
    return rows


def score_row(prediction: str, answers: Sequence[str], kind: str) -> Statistics:
    """The best exact match and the best F1 over the answers, 0..100."""
    if kind == SQUAD_2:  # answers of nothing but articles and punctuation are none
        answers = [answer for answer in answers if squad_words(answer)]
    exact, f1 = (squad_exact, squad_f1) if kind in (SQUAD_1, SQUAD_2) else (cmrc_exact, cmrc_f1)
    if not answers:
        nothing = not (squad_words(prediction) if kind == SQUAD_2 else prediction.strip())
        return {"exact": 100.0 * nothing, "f1": 100.0 * nothing}
    if kind == SQUAD_2 and not squad_words(prediction):
        return {"exact": 0.0, "f1": 0.0}
    return {
        "exact": 100.0 * max(exact(prediction, answer) for answer in answers),
        "f1": 100.0 * max(f1(prediction, answer) for answer in answers),
    }


def combine(means: Mapping[str, float]) -> Statistics:
    """The scores of the means: those of each kind of question are over its own rows."""
    scores = {name: means[name] for name in ("exact", "f1")}
    for side in ("HasAns", "NoAns"):
        if "HasAns" in means or "NoAns" in means:
            share = means.get(side, 0.0) / 100
            for name in ("exact", "f1"):
                part = f"{side}_{name}"
                scores[part] = means.get(part, 0.0) / share if share else 0.0
    return scores


# -- SQuAD -----------------------------------------------------------------------------------------


def squad_words(text: str) -> list[str]:
    """The words that are compared: lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def squad_exact(prediction: str, answer: str) -> float:
    return float(squad_words(prediction) == squad_words(answer))


def squad_f1(prediction: str, answer: str) -> float:
    guessed, wanted = squad_words(prediction), squad_words(answer)
    shared = (Counter(guessed) & Counter(wanted)).total()
    return _f1(shared, len(guessed), len(wanted))


# -- CMRC 2018 -------------------------------------------------------------------------------------


def cmrc_pieces(text: str) -> list[str]:
    """Ideographs one by one, and the words between them; no punctuation."""
    pieces: list[str] = []
    held = ""
    for character in text.lower().strip():
        if character in _CHINESE_PUNCTUATION:
            continue
        if _IDEOGRAPH.match(character):
            pieces += [*_words(held), character]
            held = ""
        else:
            held += character
    return pieces + _words(held)


def _words(text: str) -> list[str]:
    return list(_tokenizer().tokenize(text)) if text.strip() else []


@cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def cmrc_exact(prediction: str, answer: str) -> float:
    guessed, wanted = (
        "".join(c for c in text.lower().strip() if c not in _CHINESE_PUNCTUATION)
        for text in (prediction, answer)
    )
    return float(guessed == wanted)


def cmrc_f1(prediction: str, answer: str) -> float:
    guessed, wanted = cmrc_pieces(prediction), cmrc_pieces(answer)
    return _f1(_longest_run(guessed, wanted), len(guessed), len(wanted))


def _longest_run(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest run of pieces that both hold."""
    longest = 0
    before = [0] * (len(b) + 1)
    for piece in a:
        row = [0]
        for at, other in enumerate(b):
            row.append(before[at] + 1 if piece == other else 0)
        longest = max(longest, *row)
        before = row
    return longest


def _f1(shared: int, guessed: int, wanted: int) -> float:
    return 2 * shared / (guessed + wanted) if shared else 0.0


def signature(kind: str) -> str:
    words = f" | words: nltk {version('nltk')}" if kind in (CMRC, CMRC_2) else ""
    return f"rules of {kind}{words} | best of the answers, mean of rows"


METRIC = Metric(
    score_rows=score_rows,
    combine=combine,
    choose_kind=choose_kind,
    signature=signature,
    baselines={
        "likeliest sentence": lambda row, learnt: likeliest_sentence(
            row["question"], row["context"]
        )
    },
)
