"""A T5 so small that a test trains it in seconds, and a language of twenty words for it."""

import json
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mainspring.checkpoints.bundle import Bundle, new_bundle
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.families.t5 import FAMILY

NAME = "t5-nano"
SIZE = {
    **FAMILY.sizes["t5-tiny"],
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_heads": 2,
    "num_layers": 1,
    "num_decoder_layers": 2,
}

WORDS = (
    *("river", "mountain", "bridge", "quiet", "early", "market", "window"),
    *("garden", "winter", "painter", "letter", "morning", "station", "harbor"),
    *("copper", "silver", "engine", "doctor", "teacher", "village"),
)

# The program of a subprocess: the command line, with the nano size among those to train.
MAIN = str(Path(__file__).with_name("nano_main.py"))


def add_size() -> None:
    assert isinstance(FAMILY.sizes, dict)
    FAMILY.sizes[NAME] = SIZE


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(3, 7))).capitalize() + "."


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Articles of two to five sentences; the summary is the first."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        sentences = [sentence(draw) for _ in range(draw.randint(2, 5))]
        rows.append({"id": number, "article": " ".join(sentences), "summary": sentences[0]})
    return rows


def write_jsonl(rows: Iterable[Any], file: Path) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")
    return file


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@cache
def tokenizer() -> Tokenizer:
    """About 250 ids, the hundred sentinels among them; what it has not seen is `<unk>`."""
    texts = [text for row in pairs(60) for text in (row["article"], row["summary"])]
    return train_tokenizer(texts, 250)


def bundle(*, seed: int = 0, dropout: float = 0.1, **changes: Any) -> Bundle:
    """A fresh model with its tokenizer; `changes` go into its config."""
    add_size()
    sizes = FAMILY.sizes
    assert isinstance(sizes, dict)
    sizes["t5-changed"] = {**SIZE, "dropout_rate": dropout, **changes}
    try:
        return new_bundle("t5-changed", tokenizer(), seed)
    finally:
        del sizes["t5-changed"], sizes[NAME]
