"""Plain functions on text that several floors need: sentences, scripts, characters.

No tensors and no files. Sentence rules come from `sentencex` (about 300 languages, no download).
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

# Scripts written without spaces between words, one character at a time: Chinese ideographs, kana,
# bopomofo, and the South-East Asian scripts Thai, Lao, Myanmar and Khmer.
SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3105-\u312f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
SPACELESS_CHARACTER = re.compile(f"[{SPACELESS}]")
IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
KANA = re.compile("[\u3040-\u30ff]")


LINE_END = re.compile("\r\n|\r|\n")


def language_of(text: str) -> str:
    """The language code whose sentence rules suit `text`: told by its script, "en" where unsure.

    It only chooses rules for sentence ends, so telling the script apart is enough.
    """
    sample = text[:2000]
    if sample.isascii():
        return "en"
    letters = sum(character.isalpha() for character in sample)
    spaceless = len(SPACELESS_CHARACTER.findall(sample))
    if spaceless * 4 < letters or not spaceless:
        return "en"
    return "ja" if len(KANA.findall(sample)) * 10 > spaceless else "zh"


def sentences(text: str, language: str | None = None) -> list[tuple[int, int]]:
    """Spans `(start, end)` of the sentences of `text`, in characters.

    The spans tile the text: each starts where the one before ends (blanks after a sentence belong
    to it), the first starts at 0 and the last ends at `len(text)`. Empty text has none.
    `language` is an ISO 639 code ("en", "zh"); None tells it from the script.
    """
    from sentencex import segment

    starts: list[int] = []
    at = 0
    for piece in segment(language or language_of(text), text):
        # The pieces may leave out a blank line between them, so each is looked for.
        found = text.find(piece, at)
        if piece.strip() and found >= 0:
            starts.append(found)
            at = found + len(piece)
    if not text:
        return []
    return list(itertools.pairwise([0, *starts[1:], len(text)]))


def sentence_texts(text: str, language: str | None = None) -> list[str]:
    """The sentences of `text` without the blanks around them; line ends also end a sentence."""
    language = language or language_of(text)
    return [
        sentence
        for line in text.splitlines()
        for start, end in sentences(line, language)
        if (sentence := line[start:end].strip())
    ]


def non_ascii_share(texts: Iterable[str]) -> float:
    """The share (0..1) of the letters and digits in `texts` that lie outside ASCII."""
    word = ascii_word = 0
    for text in texts:
        if text.isascii():
            count = sum(map(str.isalnum, text))
            word, ascii_word = word + count, ascii_word + count
        else:
            alnum = [character for character in text if character.isalnum()]
            word += len(alnum)
            ascii_word += sum(map(str.isascii, alnum))
    return 1 - ascii_word / word if word else 0.0


@cache
def letter() -> str:
    """A pattern of one letter or digit, with its marks, of a script that has spaces."""
    # Python's \w knows no combining marks, and would cut Hindi or Arabic words at their vowels.
    marks = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c)[0] == "M")
    return f"(?![{SPACELESS}])[^\\W_][{marks}]*"


@cache
def _word() -> re.Pattern[str]:
    """One word: a spaceless character by itself, or a run of letters, digits and their marks."""
    return re.compile(f"[{SPACELESS}]|(?:{letter()})+")


def words(text: str) -> list[str]:
    """Lower-case words of text in any script; scripts without spaces give single characters."""
    return _word().findall(unicodedata.normalize("NFKC", text).lower())


@cache
def _whole_word() -> re.Pattern[str]:
    run = f"(?:{letter()})+"
    between = r"(?:[-.'’_&+@/=?%]+|://|[,:](?=\d))"
    return re.compile(rf"[@#]?{run}(?:{between}{run})*|[{SPACELESS}]|\S")


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of `text` stand, as annotators count them: letters and digits, and what joins
    them without a blank (`U.S`, `O'Brien`, `3.5`, an address); one character of a script without
    spaces; any other character that is no blank."""
    return (match.span() for match in _whole_word().finditer(text))


def shorten(text: str, length: int) -> str:
    """The beginning of `text`, at most `length` characters, with "…" where something is cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(names: Sequence[str]) -> str:
    """`names` for a message: "`a`, `b`, `c`"."""
    return ", ".join(f"`{name}`" for name in names)


def duration(seconds: float) -> str:
    """A span of time as people say it: "41 min 07 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
