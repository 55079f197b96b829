"""ROUGE-1, -2, -L and -Lsum through `rouge_score`, in any language.

Sentences for ROUGE-Lsum come from `sentencex` (no download). `rouge_score` itself knows only ASCII
letters: on Chinese or Russian it scores 0. Texts in other letters are therefore cut into words by
`mainspring.text.words`, and the signature says which way was taken.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

from mainspring.errors import BadOption
from mainspring.metrics import Metric
from mainspring.metrics.baselines import lead
from mainspring.text import non_ascii_share, sentence_texts, words

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# How words are told apart: by rouge_score's own rules and Porter's stemmer, or in any script.
ASCII, UNICODE = "ascii", "unicode"

# Above this share of letters outside ASCII the own rules would lose parts of words. English stays
# far below it (0.01 % in the sets tried), German and French lie at 1.6 % and 2.7 %.
NON_ASCII_LIMIT = 0.01


def choose_kind(texts: Iterable[str]) -> str:
    """ASCII or UNICODE, whichever suits the references of a data set."""
    return UNICODE if non_ascii_share(texts) > NON_ASCII_LIMIT else ASCII


def score_row(
    prediction: str, reference: str | Sequence[str], tokens: str = ASCII
) -> dict[str, float]:
    """F-measures of one prediction by name, 0..100; the best of several references for each."""
    scorer = _scorer(tokens)
    references = [reference] if isinstance(reference, str) else list(reference)
    if not references:
        raise BadOption("ROUGE needs at least one reference for a prediction")
    scores = scorer.score_multi([_lines(text) for text in references], _lines(prediction))
    return {name: 100 * float(scores[name].fmeasure) for name in NAMES}


def score_rows(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokens: str
) -> list[dict[str, float]]:
    """`score_row` of each; their means are the scores of the set."""
    return [
        score_row(prediction, reference, tokens)
        for prediction, reference in zip(predictions, references, strict=True)
    ]


def signature(tokens: str = ASCII) -> str:
    """What exactly is computed, for a line beside the scores."""
    kind = {
        ASCII: "stemmer:yes | tokens:ascii words",
        UNICODE: "stemmer:no | tokens:unicode words, one per character where none are spaced",
    }[tokens]
    libraries = f"rouge_score {version('rouge_score')}", f"sentencex {version('sentencex')}"
    return f"{libraries[0]} | {kind} | split:{libraries[1]} | F-measure, mean of rows"


def _lines(text: str) -> str:
    """One sentence a line, which is what ROUGE-Lsum compares; the others do not see line ends."""
    return "\n".join(sentence_texts(text))


@dataclass(frozen=True)
class _Tokenizer:
    """A function in the shape of rouge_score's tokenizers."""

    tokenize: Callable[[str], list[str]]


@dataclass(frozen=True)
class _Stemmer:
    """A function in the shape of nltk's stemmers."""

    stem: Callable[[str], str]


@cache
def _scorer(tokens: str) -> Any:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenize import tokenize

    # The default tokenizer with its stemmer's answers kept: stemming is most of the time.
    stemmer = _Stemmer(lru_cache(maxsize=1 << 16)(PorterStemmer().stem))
    match tokens:
        case "ascii":
            return RougeScorer(NAMES, tokenizer=_Tokenizer(lambda text: tokenize(text, stemmer)))
        case "unicode":
            return RougeScorer(NAMES, tokenizer=_Tokenizer(words))
    raise BadOption.unknown("way to tell words apart", tokens, (ASCII, UNICODE))


METRIC = Metric(
    score_rows=score_rows,
    choose_kind=choose_kind,
    signature=signature,
    baselines={
        "lead-1": lambda row, learnt: lead(row["text"]),
        "lead-3": lambda row, learnt: lead(row["text"], 3),
    },
)
