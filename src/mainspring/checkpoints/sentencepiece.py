"""SentencePiece `.model` files, turned into an equivalent pipeline of the `tokenizers` library.

The file is one protocol-buffer message (sentencepiece_model.proto of the SentencePiece project).
The few fields that matter are read here directly:

    ModelProto      1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
    SentencePiece   1 piece   2 score   3 type
    TrainerSpec     3 model_type   24 treat_whitespace_as_suffix   35 byte_fallback   40..43 unk_id
                    bos_id eos_id pad_id   45..48 their pieces
    NormalizerSpec  2 precompiled_charsmap   3 add_dummy_prefix   4 remove_extra_whitespaces
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.errors import BadWeights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "▁"


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `.model` file says. A piece is (text, score, type); its index is its id."""

    pieces: tuple[tuple[str, float, int], ...]
    kind: int
    unk_id: int
    byte_fallback: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_model(file: Path) -> SentencePieceModel:
    """Reads `file`. BadWeights where it is not a SentencePiece model of a kind known here."""
    try:
        return parse_model(file.read_bytes())
    except (IndexError, struct.error, ValueError, TypeError) as error:
        raise BadWeights(
            f"{file}: not a SentencePiece model that can be read ({error}); copy or download it "
            "again, or convert it to a tokenizer.json"
        ) from None


def parse_model(data: bytes) -> SentencePieceModel:
    """The model in the bytes of a `.model` file; ValueError and its like where there is none."""
    message = list(_fields(data))
    pieces = tuple(_piece(dict(_fields(value))) for number, value in message if number == 1)
    trainer = _merged(message, 2)
    normalizer = _merged(message, 3)
    kind = trainer.get(3, UNIGRAM)
    if not pieces:
        raise ValueError("it has no pieces")
    if kind not in (UNIGRAM, BPE) or trainer.get(24, 0):
        raise ValueError("only Unigram and BPE are read, with the space marked before the word")
    return SentencePieceModel(
        pieces,
        kind,
        trainer.get(40, 0),
        bool(trainer.get(35, 0)),
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def build_tokenizer(
    model: SentencePieceModel, extra: tuple[str, ...] = (), *, prefix_once: bool = False
) -> "Tokenizer":
    """A tokenizer that gives the same ids; `extra` tokens are appended to the vocabulary. With
    `prefix_once` the blank that is put before a text is not put behind its special tokens too.

    Unknown, control and user-defined pieces, and `extra`, are recognised in the text before all
    else.
    """
    import tokenizers
    from tokenizers import AddedToken, decoders, models

    scored = [(text, score) for text, score, _ in model.pieces] + [(text, 0.0) for text in extra]
    if model.kind == UNIGRAM:
        backend = tokenizers.Tokenizer(models.Unigram(scored, model.unk_id, model.byte_fallback))
    else:
        backend = tokenizers.Tokenizer(
            models.BPE(
                {text: i for i, (text, _) in enumerate(scored)},
                _merges(model.pieces),
                unk_token=model.pieces[model.unk_id][0],
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
            )
        )
    backend.normalizer, backend.pre_tokenizer = _pipeline(model, prefix_once)
    scheme = "always" if model.add_dummy_prefix else "never"
    if model.byte_fallback:
        steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        steps += [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
        backend.decoder = decoders.Sequence(steps)
    else:
        backend.decoder = decoders.Metaspace(SPACE, scheme)
    apart = (UNKNOWN, CONTROL, USER_DEFINED)
    added = [(text, kind != USER_DEFINED) for text, _, kind in model.pieces if kind in apart]
    for text, is_special in [*added, *((text, True) for text in extra)]:
        backend.add_tokens([AddedToken(text, normalized=False, special=is_special)])
    return backend


def _pipeline(model: SentencePieceModel, prefix_once: bool) -> tuple[Any, Any]:
    """Normalizer and pre-tokenizer. Words are kept apart where no piece crosses a space: a word is
    then looked up in a cache, which is what makes encoding fast."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    normal = [text for text, _, kind in model.pieces if kind == NORMAL]
    words_apart = SPACE in normal and not any(SPACE in text.lstrip(SPACE) for text in normal)
    scheme = "always" if model.add_dummy_prefix else "never"
    if model.add_dummy_prefix and prefix_once:
        scheme = "first"
    elif model.add_dummy_prefix and not model.remove_extra_whitespaces:
        # A kept blank at the beginning counts beside the added one; Metaspace would add none.
        steps.append(normalizers.Prepend(SPACE))
        scheme = "never"
    before = pre_tokenizers.Metaspace(
        SPACE, scheme, split=words_apart and model.remove_extra_whitespaces
    )
    return normalizers.Sequence(steps), before


def _merges(pieces: tuple[tuple[str, float, int], ...]) -> list[tuple[str, str]]:
    """BPE merges from piece scores: the better the score, the earlier the merge."""
    ids = {text: i for i, (text, _, _) in enumerate(pieces)}
    ranked = []
    for text, score, kind in pieces:
        if kind != NORMAL:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                ranked.append((-score, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


# -- the protocol-buffer wire format -----------------------------------------------------------


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) pairs of one message: int, 4- or 8-byte bytes, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError("the file ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _piece(fields: dict[int, Any]) -> tuple[str, float, int]:
    score = struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
    return fields.get(1, b"").decode("utf-8"), score, fields.get(3, NORMAL)


def _merged(message: list[tuple[int, Any]], number: int) -> dict[int, Any]:
    """The fields of a sub-message."""
    return dict(field for n, value in message if n == number for field in _fields(value))
