"""How a checkpoint is told the languages it reads and writes: by a token before the text (M2M100,
NLLB, mBART-50), behind it (mBART of 25 languages), in words (T5), or not at all (OPUS-MT).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mainspring import languages
from mainspring.checkpoints.tokenizer import CONFIG, Tokenizer
from mainspring.errors import BadOption

# M2M100, NLLB, mBART; and what OPUS-MT's models of many target languages read before the text.
LANGUAGE_TOKENS = re.compile(r"__([a-z]{2,4})__|([a-z]{3}_[A-Z][a-z]{3})|([a-z]{2}_[A-Z]{2})")
TARGET_TOKENS = re.compile(r">>(.+)<<")


@dataclass(frozen=True)
class Side:
    """What one side's texts become: their ids, with the token of their language.

    `language` is None where the model has no such tokens. It stands first, or `last`.
    """

    tokenizer: Tokenizer
    language: int | None = None
    last: bool = False

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        if self.language is None:
            return self.tokenizer.encode_many(texts)
        rows = self.tokenizer.encode_many(texts, special=False)
        end = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        if self.last:
            return [[*row, *end, self.language] for row in rows]
        return [[self.language, *row, *end] for row in rows]


def language_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Language code -> id of its token; empty where the model has none."""
    found = {}
    for number, token in tokenizer.backend.get_added_tokens_decoder().items():
        match = LANGUAGE_TOKENS.fullmatch(token.content)
        if match is not None:
            found[match[match.lastindex or 0]] = number
    return found if len(found) > 1 else {}


def sides(tokenizer: Tokenizer, source: str | None, target: str | None) -> tuple[Side, Side]:
    """How texts in the language `source` are read, and those in `target` written.

    BadOption where the model must be told a language, or does not know it.
    """
    known = language_tokens(tokenizer)
    if not known:
        return Side(tokenizer), Side(tokenizer.writer)
    last = _stands_last(tokenizer, known)
    read = language_id(known, source, "--source-language")
    written = language_id(known, target, "--target-language")
    return Side(tokenizer, read, last), Side(tokenizer.writer, written, last)


def language_id(known: dict[str, int], code: str | None, option: str) -> int:
    """The id of the token of a language, by its code or any code that means the same."""
    if code is None:
        raise BadOption(
            f"this model knows {len(known)} languages and must be told which: give {option}"
        )
    if code in known:
        return known[code]
    found = languages.nearest(languages.nllb(code), list(known))
    if found is None:
        raise BadOption.unknown(f"{option}: language", code, known)
    return known[found]


def _stands_last(tokenizer: Tokenizer, known: dict[str, int]) -> bool:
    """Whether the language stands behind the end token. NLLB's files tell the old way even where
    the model wants the new one; a key of the config decides there."""
    if any("_" in code and len(code) == 8 for code in known):
        return bool(json.loads(tokenizer.files.get(CONFIG, b"{}")).get("legacy_behaviour"))
    ids = tokenizer.encode("a")
    return ids[0] not in known.values() and ids[-1] in known.values()


def target_prefix(tokenizer: Tokenizer, target: str | None) -> str:
    """What an OPUS-MT model of several target languages reads before the text: `>>fra<< `; "" where
    the model is none, or no language is named."""
    codes = {}
    for token in tokenizer.backend.get_vocab(with_added_tokens=True):
        match = TARGET_TOKENS.fullmatch(token)
        if match is not None:
            codes[match[1]] = token
    if not codes or target is None:
        return ""
    found = target if target in codes else languages.nearest(target, list(codes))
    if found is None:
        raise BadOption.unknown("--target-language: language", target, codes)
    return codes[found] + " "
