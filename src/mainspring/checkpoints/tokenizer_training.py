"""Vocabularies learnt from text: Unigram and byte-level BPE, as pipelines of `tokenizers`.

Unigram pieces are learnt by the SentencePiece library: the trainer of `tokenizers` finds its
candidates inside of words that are already apart, and so misses whole words ("▁tha" + "t").
"""

import io
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mainspring import events
from mainspring.checkpoints.sentencepiece import SPACE, parse_model
from mainspring.errors import BadData, BadOption
from mainspring.text import IDEOGRAPH

if TYPE_CHECKING:
    import tokenizers

LONGEST_LINE = 1000  # characters; SentencePiece leaves longer lines out, so they are cut
# Learning takes about 25 bytes of memory a character, so of very many texts it takes a sample.
MOST_CHARACTERS = 30_000_000
# The parts that SentencePiece knows; the other special tokens come right after these.
NAMED = ("unk", "bos", "eos", "pad")
# A vocabulary of fewer pieces does without the 256 bytes, which would take too much of it.
WITH_BYTES = 2000
LIKE_A_BYTE = "<(?=0x[0-9A-F]{2}>)"  # what a byte is written as; in a text it is six characters
APART = "\x1f"  # stands between what no piece may join, in what the trainer reads alone


def train_unigram(
    texts: Iterable[str], room: int, special: Mapping[str, str], ideographs_apart: bool = False
) -> "tokenizers.Tokenizer":
    """`room` pieces at most, the first of them `special` (texts by part, "unk" among them).

    From `WITH_BYTES` pieces on the 256 bytes are among them, by which characters without a piece
    are spelt; `ideographs_apart` makes no piece of two Chinese characters.
    """
    import sentencepiece
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

    parts = list(special)
    named = {part: parts.index(part) if part in special else -1 for part in NAMED}
    settings: dict[str, Any] = {f"{part}_id": place for part, place in named.items()}
    settings |= {f"{part}_piece": special[part] for part in NAMED if part in special}
    written = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    lines: Iterable[str] = sample(_lines(normalizers.NFC(), texts), "lines")
    if ideographs_apart:
        settings["pretokenization_delimiter"] = APART
        lines = (IDEOGRAPH.sub(f"{APART}\\g<0>{APART}", line) for line in lines)
    by_bytes = room >= WITH_BYTES
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type="unigram",
            vocab_size=room,
            hard_vocab_limit=False,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n"],
            max_sentence_length=4 * LONGEST_LINE,
            control_symbols=[text for part, text in special.items() if part not in NAMED],
            **settings,
            byte_fallback=by_bytes,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise BadOption(
            f"a unigram tokenizer of {room} pieces cannot be trained on these texts; ask for a "
            f"larger vocabulary, or for `byte-bpe` ({str(error).rpartition('] ')[2]})"
        ) from None
    pieces = parse_model(written.getvalue()).pieces
    scored = [(text, score) for text, score, _ in pieces]
    backend = tokenizers.Tokenizer(models.Unigram(scored, named["unk"], by_bytes))
    # NFC, where T5's own files have NFKC: that would write Chinese text with Latin punctuation.
    # Every line, not only the first, begins with the mark of a word's beginning; taking one mark
    # off each line when decoding gives every line break and space back.
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(" ", SPACE),
            normalizers.Replace(Regex(r"^(?=[^\n])"), SPACE),
        ]
    )
    apart = [LIKE_A_BYTE] * by_bytes + [IDEOGRAPH.pattern] * ideographs_apart
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(SPACE, "never"),
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in apart),
        ]
    )
    backend.decoder = decoders.Sequence(
        [
            *([decoders.ByteFallback()] if by_bytes else []),
            decoders.Fuse(),
            decoders.Replace(f"\n{SPACE}", "\n"),
            decoders.Replace(SPACE, " "),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


def train_byte_bpe(
    texts: Iterable[str], room: int, special: Mapping[str, str]
) -> "tokenizers.Tokenizer":
    """`room` pieces at most, `special` and the 256 bytes among them."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    lacking = len(special) + len(alphabet) - room
    if lacking > 0:
        raise BadOption(
            f"a byte-bpe tokenizer has {len(alphabet)} bytes beside its special tokens; ask for a "
            f"vocabulary larger by {lacking} or more"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        special_tokens=list(special.values()),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(sample(_checked(texts), "texts"), trainer)
    return backend


def sample(texts: Iterable[str], what: str, most: int = MOST_CHARACTERS) -> list[str]:
    """The texts, or where they have more than `most` characters some of them, drawn at random; that
    is said, and `what` the texts are."""
    draw = random.Random(0)
    kept: list[str] = []
    seen = size = 0
    share = 1.0
    for text in texts:
        seen += 1
        if share == 1.0 or draw.random() < share:
            kept.append(text)
            size += len(text)
        while size > most and len(kept) > 1:
            share /= 2
            kept = [text for text in kept if draw.random() < 0.5] or kept[:1]
            size = sum(map(len, kept))
    if share < 1.0:
        events.note(f"the tokenizer learns from {len(kept)} of {seen} {what}, drawn at random")
    return kept


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts; BadData where there is none with anything in it."""
    any_text = False
    for text in texts:
        any_text = any_text or bool(text.strip())
        yield text
    if not any_text:
        raise BadData("there is no text to train a tokenizer on")


def _lines(normalizer: "tokenizers.normalizers.Normalizer", texts: Iterable[str]) -> Iterator[str]:
    """The texts' lines, normalised, in parts that the trainer takes."""
    for text in _checked(texts):
        for line in normalizer.normalize_str(text).split("\n"):
            for at in range(0, len(line), LONGEST_LINE):
                yield line[at : at + LONGEST_LINE]
