"""The tokenizer inside a GGUF file: byte-level BPE ("gpt2") or SentencePiece ("llama", "t5").

tokenizer.ggml.model, .pre                       the kind, and how text is split before
tokenizer.ggml.tokens, .scores, .token_type      the vocabulary, by id
tokenizer.ggml.merges                            BPE merges, "left right", the best first
tokenizer.ggml.bos_token_id, ..., .add_bos_token, .add_eos_token, .add_space_prefix
tokenizer.chat_template                          a Jinja text
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.checkpoints.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
    SentencePieceModel,
    build_tokenizer,
)
from mainspring.checkpoints.tokenizer import CHAT, Tokenizer, add_around
from mainspring.errors import BadOption, BadWeights

if TYPE_CHECKING:
    import tokenizers

PREFIX = "tokenizer.ggml."
SENTENCEPIECE = {"llama": BPE, "t5": UNIGRAM}
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

# How text is split before byte-level BPE: by each regular expression in turn. For the first two
# `tokenizers` has parts of its own.
DIGITS = r"\p{N}"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "smollm": (DIGITS, GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace("{1,3}", ""),),
    "tekken": (_TEKKEN,),
    "dbrx": (_LLAMA3,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
ALIASES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral"), "llama-bpe"),
    "smaug-bpe": "dbrx",
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone"), "smollm"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "stablelm2", "kormo"), "qwen2"),
    **dict.fromkeys(("mpt", "olmo", "jais", "trillion", "phi-2"), "gpt-2"),
}
# Of these a piece that is a whole entry of the vocabulary stays whole, whatever the merges say, and
# the begin token comes first where the file does not say otherwise.
WHOLE = ("llama-bpe", "tekken")
# These were trained on text in this form; a GGUF file does not say so, the original files do.
COMPOSED = ("qwen2",)


# -- reading -----------------------------------------------------------------------------------


def read_tokenizer(metadata: Mapping[str, Any], file: Path) -> Tokenizer | None:
    """The tokenizer that a file's values describe; None where they describe none.

    BadOption for a kind, or a way to split text, that is not known here.
    """
    values = {
        name.removeprefix(PREFIX): value
        for name, value in metadata.items()
        if name.startswith(PREFIX)
    }
    kind, tokens = values.get("model"), values.get("tokens")
    if kind is None or kind in ("no_vocab", "none") or tokens is None:
        return None
    types = values.get("token_type", [NORMAL] * len(tokens))
    if len(types) != len(tokens) or len(values.get("scores", tokens)) != len(tokens):
        raise BadWeights(f"{file}: the lists of tokens, their types and scores differ in length")
    if kind == "gpt2":
        pre = values.get("pre", "default")
        backend = _byte_bpe(tokens, types, values.get("merges", []), pre, file)
        begins = ALIASES.get(pre, pre) in WHOLE
    elif kind in SENTENCEPIECE:
        backend = _sentencepiece(tokens, types, values, SENTENCEPIECE[kind])
        begins = kind == "llama"
    else:
        known = ", ".join(("gpt2", *SENTENCEPIECE))
        raise BadOption(f"{file}: tokenizers of the kind `{kind}` are not read; known: {known}")
    special = {}
    for part, name in SPECIAL.items():
        i = values.get(f"{name}_token_id")
        if i is not None and 0 <= i < len(tokens):
            special[part] = tokens[i]
    first = values.get("add_bos_token", begins) and "bos" in special
    last = values.get("add_eos_token", kind == "t5") and "eos" in special
    if first or last:
        add_around(backend, special, first, last)
    template = metadata.get("tokenizer.chat_template")
    files = {CHAT: template.encode()} if isinstance(template, str) else {}
    return Tokenizer(backend, special, files)


def _byte_bpe(
    tokens: list[str], types: list[int], merges: list[str], pre: str, file: Path
) -> "tokenizers.Tokenizer":
    import tokenizers
    from tokenizers import AddedToken, decoders, models, normalizers

    name = ALIASES.get(pre, pre)
    if name not in SPLITS:
        problem = BadOption.unknown("way to split text", pre, (*SPLITS, *ALIASES))
        raise BadOption(f"{file}: {problem} (`{PREFIX}pre`)")
    # Rows of the embedding without a token of their own are named, and never come out of a text.
    ids = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        model = models.BPE(ids, pairs, ignore_merges=name in WHOLE)
    except Exception as error:  # noqa: BLE001  (the library raises plain Exception)
        raise BadWeights(f"{file}: the vocabulary and its merges do not agree ({error})") from None
    backend = tokenizers.Tokenizer(model)
    if pre in COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _splitter(SPLITS[name])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(
        [
            AddedToken(tokens[i], normalized=False, special=kind == CONTROL)
            for i, kind in enumerate(types)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return backend


def _splitter(steps: tuple[str, ...]) -> "tokenizers.pre_tokenizers.PreTokenizer":
    from tokenizers import Regex, pre_tokenizers

    *before, last = steps if steps[-1] == GPT2 else (*steps, "")
    parts: list[Any] = [
        pre_tokenizers.Digits(individual_digits=True)
        if step == DIGITS
        else pre_tokenizers.Split(Regex(step), "isolated")
        for step in before
    ]
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=last == GPT2))
    return parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)


def _sentencepiece(
    tokens: list[str], types: list[int], values: Mapping[str, Any], kind: int
) -> "tokenizers.Tokenizer":
    scores = values.get("scores", [0.0] * len(tokens))
    model = SentencePieceModel(
        tuple(zip(tokens, scores, types, strict=True)),
        kind,
        values.get("unknown_token_id", 0),
        byte_fallback=BYTE in types,
        charsmap=bytes(b & 0xFF for b in values.get("precompiled_charsmap", ())),
        add_dummy_prefix=values.get("add_space_prefix", True),
        remove_extra_whitespaces=values.get("remove_extra_whitespaces", False),
    )
    return build_tokenizer(model)
