"""A tokenizer as the values of a GGUF file: the way back from `gguf_tokenizer`."""

import json
from collections.abc import Mapping
from typing import Any

from mainspring.checkpoints.gguf_tokenizer import DIGITS, GPT2, PREFIX, SPECIAL, SPLITS, WHOLE
from mainspring.checkpoints.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadOption


def vocabulary_values(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The values that describe `tokenizer`, for an embedding of so many rows.

    BadOption where it is none of the kinds that GGUF's readers know.
    """
    data = json.loads(tokenizer.backend.to_str())
    model = data["model"]
    if model["type"] != "BPE":
        raise BadOption(
            f"a {model['type']} tokenizer cannot be written as GGUF; byte-level BPE, and BPE with "
            "bytes for what is unknown, can"
        )
    tokens, types = _tokens(tokenizer, model.get("unk_token"), rows)
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    values: dict[str, Any] = {"tokens": tokens}
    if model["byte_fallback"]:
        first = tokenizer.backend.encode("a", add_special_tokens=False).tokens[0]
        values |= {
            "model": "llama",
            "pre": "default",
            "scores": _scores(tokens, pairs),
            "add_space_prefix": first.startswith(SPACE),
        }
        types = [
            BYTE if _is_byte(token) else kind for token, kind in zip(tokens, types, strict=True)
        ]
    else:
        values |= {
            "model": "gpt2",
            "pre": _split_name(data.get("pre_tokenizer"), bool(model.get("ignore_merges"))),
            "merges": [" ".join(pair) for pair in pairs],
        }
    values["token_type"] = types
    for part, name in SPECIAL.items():
        i = tokenizer.id_of(tokenizer.special[part]) if part in tokenizer.special else None
        if i is not None:
            values[f"{name}_token_id"] = i
    around = tokenizer.encode("a")
    values["add_bos_token"] = len(around) > 1 and around[0] == tokenizer.bos_id
    values["add_eos_token"] = len(around) > 1 and around[-1] == tokenizer.eos_id
    template = tokenizer.chat_template
    named = {PREFIX + name: value for name, value in values.items()}
    return {**named, **({} if template is None else {"tokenizer.chat_template": template})}


def _tokens(tokenizer: Tokenizer, unknown: str | None, rows: int) -> tuple[list[str], list[int]]:
    """The token of each row, and its kind; rows without one get a name of their own."""
    ids = {i: token for token, i in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    added = tokenizer.backend.get_added_tokens_decoder()
    tokens, types = [], []
    for i in range(rows):
        tokens.append(ids.get(i, f"[PAD{i}]"))
        if i not in ids:
            types.append(UNUSED)
        elif i in added:
            types.append(CONTROL if added[i].special else USER_DEFINED)
        else:
            types.append(NORMAL)
        if unknown is not None and tokens[i] == unknown and i not in added:
            types[i] = UNKNOWN
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(tokens: list[str], pairs: list[tuple[str, ...]]) -> list[float]:
    """Scores that give the merges back in their order: what is merged sooner scores higher."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(pairs))) for token in tokens]


def _split_name(described: Mapping[str, Any] | None, whole: bool) -> str:
    """GGUF's name for the way that a tokenizer.json splits text."""
    parts = (described or {}).get("pretokenizers", [described])
    steps = [_step(part or {}) for part in parts]
    for name, known in SPLITS.items():
        if tuple(step for step in steps if step != "") == known and (name in WHOLE) == whole:
            return name
    raise BadOption(
        "the way that this tokenizer splits text has no name in GGUF; known: " + ", ".join(SPLITS)
    )


def _step(part: Mapping[str, Any]) -> str | None:
    """The regular expression of one step, "" for one that only spells bytes, None for others."""
    match part:
        case {"type": "Digits", "individual_digits": True}:
            return DIGITS
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use}:
            return GPT2 if use else ""
        case {
            "type": "Split",
            "pattern": {"Regex": regex},
            "behavior": "Isolated",
            "invert": False,
        }:
            return str(regex)
    return None
