"""Word and character error rates of transcripts, counted by jiwer.

Both are the edits (substitutions, deletions, insertions) that turn the answers into the references,
for 100 words or characters of the references. They are given for the texts as they are (`_raw`)
and without what is not heard: case, punctuation, kinds of blanks.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.extras import ERROR_RATES
from mainspring.metrics import Metric, Statistics
from mainspring.text import SPACELESS_CHARACTER

NAMES = ("wer", "cer", "wer_raw", "cer_raw")


def normalised(text: str) -> str:
    """`text` in lower case, with blanks in place of all that is no letter, mark or digit, but for
    apostrophes within words; characters of scripts without blanks stand apart."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = [
        character if _is_heard(character) or _is_within(plain, at) else " "
        for at, character in enumerate(plain)
    ]
    apart = SPACELESS_CHARACTER.sub(lambda found: f" {found[0]} ", "".join(kept))
    return " ".join(apart.split())


def _is_heard(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _is_within(text: str, at: int) -> bool:
    """Whether an apostrophe stands between two letters: "don't"."""
    return text[at] == "'" and all(
        part.isalpha() for part in (text[at - 1 : at], text[at + 1 : at + 2])
    )


def score_rows(
    predictions: Sequence[str], references: Sequence[str], kind: str
) -> list[Statistics]:
    """Edits and lengths of each row, by score: `wer_edits`, `wer_length` …"""
    del kind
    rows = []
    for made, wanted in zip(predictions, references, strict=True):
        row: Statistics = {}
        for suffix, texts in (
            ("", (normalised(made), normalised(wanted))),
            ("_raw", (made, wanted)),
        ):
            guess, reference = (text.split() for text in texts)
            letters = [" ".join(words) for words in (guess, reference)]
            for name, parts in (("wer", (guess, reference)), ("cer", letters)):
                row[f"{name}{suffix}_edits"] = float(_edits(*parts))
                row[f"{name}{suffix}_length"] = float(len(parts[1]))
        rows.append(row)
    return rows


def _edits(made: Sequence[str], wanted: Sequence[str]) -> int:
    """The least number of edits between two sequences of words or characters."""
    if not wanted or not made:  # jiwer wants words in the reference
        return len(made) + len(wanted)
    jiwer = _jiwer()
    words = isinstance(wanted, list)
    count = jiwer.process_words if words else jiwer.process_characters
    texts = (" ".join(wanted), " ".join(made)) if words else (wanted, made)
    found = count(*texts)
    return int(found.substitutions + found.deletions + found.insertions)


def combine(means: Mapping[str, float]) -> Statistics:
    """The rates, of all edits over the length of all references; 0 where there is nothing."""
    return {
        name: 100 * means[f"{name}_edits"] / max(means[f"{name}_length"], 1e-9)
        if means[f"{name}_edits"]
        else 0.0
        for name in NAMES
    }


def signature(kind: str) -> str:
    del kind
    from importlib.metadata import version

    _jiwer()
    return f"jiwer {version('jiwer')} | wer, cer: NFKC, lower case, letters and digits only"


def _jiwer() -> Any:
    try:
        import jiwer
    except ModuleNotFoundError:
        raise ERROR_RATES.missing() from None
    return jiwer


METRIC = Metric(
    score_rows=score_rows,
    signature=signature,
    combine=combine,
    needs=ERROR_RATES,
    errors=NAMES,
)
