"""Tokenizers in which SentencePiece cuts the text and `vocab.json` numbers the pieces: Marian's,
with one SentencePiece model for each side, and M2M100's, with a token for each language.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.checkpoints.config import read_json
from mainspring.checkpoints.sentencepiece import build_tokenizer, read_model
from mainspring.checkpoints.tokenizer import (
    CONFIG,
    SIDES,
    SPECIAL_MAP,
    Tokenizer,
    special_tokens,
)
from mainspring.checkpoints.vocabulary_files import NUMBERS
from mainspring.errors import BadWeights, Mismatch, Missing

if TYPE_CHECKING:
    import tokenizers

M2M100_MODEL = "sentencepiece.bpe.model"
# The languages of M2M100, in the order of their tokens' ids (Fan et al., 2021, table 1).
M2M100 = (
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu "
    "ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr "
    "ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr "
    "uk ur uz vi wo xh yi yo zh zu"
)
LANGUAGES = {"m2m100": M2M100, "wmt21": "en ha is ja cs ru zh de"}


class NumberedTokenizer(Tokenizer):
    """`cutter` cuts a text into pieces, the vocabulary of `backend` numbers them.

    `target` cuts the texts that are to be written, where that is another model's work. `language`
    is the token that stands before every text unless another language is asked for.
    """

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        special: Mapping[str, str],
        files: Mapping[str, bytes],
        cutter: "tokenizers.Tokenizer",
        target: "tokenizers.Tokenizer | None" = None,
        language: str | None = None,
    ):
        super().__init__(backend, special, files)
        self.cutter, self.target, self.language = cutter, target, language
        self.ids = backend.get_vocab(with_added_tokens=True)
        unknown, end = self.unk_id, self.eos_id
        if unknown is None or end is None:
            raise BadWeights("vocab.json: no token for what is unknown, or none that ends a text")
        self.unknown, self.end = unknown, end

    def encode(self, text: str, special: bool = True) -> list[int]:
        return self.encode_many([text], special)[0]

    def encode_many(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        before, after = self.frame if special else ([], [])
        split = [_language_code(text) for text in texts]
        found = self.cutter.encode_batch([text for _, text in split], add_special_tokens=False)
        rows = [[*code, *cut.tokens] for (code, _), cut in zip(split, found, strict=True)]
        return [[*before, *self._numbers(row), *after] for row in rows]

    def _numbers(self, pieces: Sequence[str]) -> list[int]:
        return [self.ids.get(piece, self.unknown) for piece in pieces]

    def offsets_many(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        found = self.cutter.encode_batch(list(texts), add_special_tokens=False)
        return [(self._numbers(cut.tokens), cut.offsets) for cut in found]

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        begin = [] if self.language is None else [self.ids[self.language]]
        return begin, [self.end]

    @cached_property
    def writer(self) -> Tokenizer:
        if self.target is None:
            return self
        return NumberedTokenizer(
            self.backend, self.special, self.files, self.target, None, self.language
        )

    def save(self, folder: Path) -> None:
        """Writes the files that were read; these have no `tokenizer.json`."""
        from mainspring.weights.files import write_bytes

        for name, data in self.files.items():
            write_bytes(data, folder / name)


def _language_code(text: str) -> tuple[list[str], str]:
    """A code such as `>>fra<<` at the beginning, which is one token, and the text after it."""
    end = text.find("<<")
    return ([text[: end + 2]], text[end + 2 :]) if text.startswith(">>") and end > 0 else ([], text)


def open_numbered(folder: Path) -> NumberedTokenizer:
    """The tokenizer in a folder with `vocab.json` and SentencePiece models beside it."""
    sided = (folder / SIDES[0]).is_file()
    models = SIDES if sided else (M2M100_MODEL,)
    for name in (NUMBERS, *models):
        if not (folder / name).is_file():
            raise Missing(f"{folder}: no {name}, which belongs to this tokenizer; copy it again")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = read_json(folder / SPECIAL_MAP) if (folder / SPECIAL_MAP).is_file() else {}
    if config.get("separate_vocabs"):
        raise Mismatch(f"{folder}: a vocabulary for each language is not read, only one for both")
    ids = _numbers(folder / NUMBERS)
    languages = [] if sided else LANGUAGES.get(config.get("language_codes", "m2m100"), "").split()
    tokens = [f"__{code}__" for code in languages]
    backend = _vocabulary(ids, tokens, [token for _, token in _texts({**named, **config})])
    cutters = [build_tokenizer(read_model(folder / name)) for name in models]
    language = None
    if tokens:
        language = f"__{config.get('src_lang') or 'en'}__"
        if language not in tokens:
            raise BadWeights(f"{folder / CONFIG}: `src_lang` names no language of this tokenizer")
    files = {n: folder / n for n in (NUMBERS, *models, CONFIG, SPECIAL_MAP)}
    return NumberedTokenizer(
        backend,
        special_tokens(backend, {**named, **config}),
        {name: file.read_bytes() for name, file in files.items() if file.is_file()},
        cutters[0],
        cutters[1] if sided else None,
        language,
    )


def _numbers(file: Path) -> dict[str, int]:
    ids = read_json(file)
    if not all(isinstance(number, int) for number in ids.values()):
        raise BadWeights(f"{file}: holds something else than a number for each token")
    return ids


def _texts(named: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The special tokens: (part, token)."""
    found = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    for part in ("bos", "eos", "unk", "pad"):
        token = named.get(f"{part}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[part] = token
    return list(found.items())


def _vocabulary(
    ids: Mapping[str, int], languages: Sequence[str], special: Sequence[str]
) -> "tokenizers.Tokenizer":
    """A backend that knows the tokens and their text, and cuts nothing. Languages come last."""
    import tokenizers
    from tokenizers import AddedToken, decoders, models

    backend = tokenizers.Tokenizer(models.WordLevel(dict(ids), "<unk>"))
    backend.decoder = decoders.Metaspace("▁", "always")
    known = [token for token in special if token in ids]
    # Those beyond the vocabulary get the next ids, one after the other.
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in [*known, *languages]])
    return backend
