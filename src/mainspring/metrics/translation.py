"""BLEU (Papineni et al., 2002) and chrF2 (Popović, 2015) through sacreBLEU, row by row.

A row's statistics are sacreBLEU's own counts of it. The scores of a set are what sacreBLEU makes of
their sums, so that they equal its corpus scores, and resampled rows give honest intervals.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from mainspring.errors import BadOption
from mainspring.extras import BLEU as BLEU_EXTRA
from mainspring.metrics import ROWS, Metric, Statistics
from mainspring.text import KANA, SPACELESS_CHARACTER

# sacreBLEU's tokenizers, and the package that the Japanese one stands in.
STANDARD, CHINESE, JAPANESE, CHARACTERS = "13a", "zh", "ja-mecab", "char"
MECAB = "MeCab"


def choose_kind(references: Iterable[str]) -> str:
    """The tokenizer that suits the script of the references.

    `zh` for Chinese; for Japanese `ja-mecab` where MeCab is installed; `char` for Japanese without
    it and for the other scripts without spaces between words; else `13a`, the standard.
    """
    letters = spaceless = kana = ideographs = 0
    for text in references:
        letters += sum(map(str.isalpha, text))
        if not text.isascii():
            spaceless += len(SPACELESS_CHARACTER.findall(text))
            kana += len(KANA.findall(text))
            ideographs += sum("\u3400" <= character <= "\u9fff" for character in text)
    if spaceless * 2 < letters or not spaceless:
        return STANDARD
    if kana * 10 > spaceless:
        return CHARACTERS if find_spec(MECAB) is None else JAPANESE
    return CHINESE if ideographs * 2 > spaceless else CHARACTERS


def score_rows(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokens: str
) -> list[Statistics]:
    """The counts of each row by name, `bleu_0` … and `chrf_0` …, in sacreBLEU's order."""
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        several = [reference] if isinstance(reference, str) else list(reference)
        if not several:
            raise BadOption("BLEU needs at least one reference for a prediction")
        row: Statistics = {}
        for name, metric in _metrics(tokens).items():
            # What sacreBLEU itself resamples for its intervals.
            [counts] = metric._extract_corpus_statistics([prediction], [[text] for text in several])
            row |= {f"{name}_{place}": float(count) for place, count in enumerate(counts)}
        rows.append(row)
    return rows


def combine(means: Mapping[str, float]) -> Statistics:
    """`bleu` and `chrf2`, 0..100, of the mean counts over `rows` rows."""
    rows, scores = means[ROWS], {}
    for name, metric in _metrics(STANDARD).items():  # how words were told apart plays no part here
        size = sum(key.startswith(f"{name}_") for key in means)
        # Smoothing looks at whole counts, not at their ratios alone.
        counts = [round(means[f"{name}_{place}"] * rows) for place in range(size)]
        scores[NAMES[name]] = float(metric._compute_score_from_stats(counts).score)
    return scores


NAMES = {"bleu": "bleu", "chrf": "chrf2"}


def signature(tokens: str = STANDARD) -> str:
    """sacreBLEU's own signatures of both scores."""
    found = []
    for name, metric in _metrics(tokens).items():
        metric.corpus_score(["a"], [["a"]])  # a signature is there once something was scored
        found.append(f"{NAMES[name]} {metric.get_signature()}")
    return " | ".join(found)


@cache
def _metrics(tokens: str) -> dict[str, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ModuleNotFoundError:
        raise BLEU_EXTRA.missing() from None
    if tokens not in BLEU.TOKENIZERS:
        raise BadOption.unknown("tokenizer of BLEU", tokens, BLEU.TOKENIZERS)
    return {"bleu": BLEU(tokenize=tokens), "chrf": CHRF()}


METRIC = Metric(
    score_rows=score_rows,
    choose_kind=choose_kind,
    signature=signature,
    combine=combine,
    needs=BLEU_EXTRA,
    baselines={"copy": lambda row, learnt: row["text"]},
)
