"""A T5 so small that a test trains it in seconds, and a language of twenty words for it."""

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

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
    "num_layers": 2,
    "num_decoder_layers": 2,
}

WORDS = (
    *("river", "mountain", "bridge", "quiet", "early", "market", "window"),
    *("garden", "winter", "painter", "letter", "morning", "station", "harbor"),
    *("copper", "silver", "engine", "doctor", "teacher", "village"),
)


@contextmanager
def size(name: str = NAME, **changes: Any) -> Iterator[str]:
    """Within the block T5 has one more size; `changes` go into its config."""
    assert isinstance(FAMILY.sizes, dict)
    before = dict(FAMILY.sizes)
    FAMILY.sizes[name] = {**SIZE, **changes}
    try:
        yield name
    finally:
        FAMILY.sizes.clear()
        FAMILY.sizes.update(before)


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
    with size("t5-changed", dropout_rate=dropout, **changes) as name:
        return new_bundle(name, tokenizer(), seed)


# -- the command line in a process of its own ------------------------------------------------------


PRELOAD = (
    "nltk.stem.porter",
    "rouge_score.rouge_scorer",
    "scipy.stats",
    "mainspring.console",
    "mainspring.tasks.pretrain",
    "mainspring.tasks.summarize",
    "mainspring.training.fitting",
    "mainspring.verbs.applying",
    "mainspring.verbs.scoring",
)


class Command:
    """`mainspring WORDS...` in a process of its own, which can be sent signals.

    The process is forked from a server that has the imports behind it. What it writes goes to files
    in `folder`; `before` (a function of a module, so that it can be sent) is called first.
    """

    def __init__(
        self, folder: Path, *words: object, before: Callable[[], object] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out_file, self.err_file = folder / "stdout", folder / "stderr"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOAD))
        self.process = context.Process(
            target=_main, args=(list(map(str, words)), folder, torch.get_num_threads(), before)
        )
        self.process.start()

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits for something that the process is about to do."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), self.err
            assert time.monotonic() < end, self.err
            time.sleep(0.002)

    def wait(self, seconds: float = 120) -> int:
        """The exit code; minus the signal's number where one ended the process."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.err
        return self.process.exitcode

    @property
    def out(self) -> str:
        return self.out_file.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self.err_file.read_text(encoding="utf-8")


def _main(
    words: list[str], folder: Path, threads: int, before: Callable[[], object] | None
) -> None:
    from mainspring.cli import main

    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    torch.set_num_threads(threads)
    if before is not None:
        before()
    try:
        with size():
            main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


# -- tokenizers of translation models --------------------------------------------------------------


def _sentencepiece(file: Path, texts: list[str], kind: str, size: int) -> list[str]:
    """Trains a SentencePiece model; its pieces."""
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=made,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    file.write_bytes(made.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def _sides() -> tuple[list[str], list[str]]:
    """Sentences, and the same ones in another language (with its words spelled backwards)."""
    read = [text for row in pairs(60) for text in (row["article"], row["summary"])]
    return read, [" ".join(word[::-1] for word in text.split()) for text in read]


def marian_tokenizer(folder: Path) -> Path:
    """A tokenizer as OPUS-MT's models have it; `rare.json` names a piece that has no number."""
    read, written = _sides()
    pieces = _sentencepiece(folder / "source.spm", read, "unigram", 120)
    others = _sentencepiece(folder / "target.spm", written, "unigram", 110)
    special = ("<unk>", "<s>", "</s>")
    known = [piece for piece in dict.fromkeys([*pieces, *others]) if piece not in special]
    rare = next(piece for piece in reversed(pieces) if len(piece) > 4 and piece not in others)
    known.remove(rare)
    tokens = ["</s>", "<unk>", *known, ">>deu<<", ">>fra<<", "<pad>"]
    numbers = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "rare.json").write_text(json.dumps(rare), encoding="utf-8")
    config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def m2m100_tokenizer(folder: Path) -> Path:
    """A tokenizer as M2M100 has it, a token for each of a hundred languages behind the pieces."""
    texts = [text for side in _sides() for text in side]
    pieces = _sentencepiece(folder / "sentencepiece.bpe.model", texts, "bpe", 140)
    special = ("<unk>", "<s>", "</s>")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(piece for piece in pieces if piece not in special)]
    numbers = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    from mainspring.checkpoints.numbered import LANGUAGES

    languages = [f"__{code}__" for code in LANGUAGES["m2m100"].split()]
    config = {"tokenizer_class": "M2M100Tokenizer", "additional_special_tokens": languages}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def language_tokenizer(folder: Path, kind: str) -> Path:
    """A tokenizer of the class `kind`, mBART's, mBART-50's or NLLB's: a SentencePiece file alone,
    and for NLLB the numbers of its languages as its published files state them."""
    from mainspring.checkpoints.piece_layouts import layout_of

    texts = [text for side in _sides() for text in side]
    trainer = "bpe" if kind == "NllbTokenizer" else "unigram"
    pieces = _sentencepiece(folder / "sentencepiece.bpe.model", texts, trainer, 140)
    config: dict[str, Any] = {"tokenizer_class": kind}
    if kind == "NllbTokenizer":
        layout = layout_of(kind)
        first = len(layout.front) + len(pieces) - layout.skipped
        config["added_tokens_decoder"] = {
            str(first + place): {"content": token, "special": True, "lstrip": token == "<mask>"}
            for place, token in enumerate(layout.back)
        }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@cache
def decoder_tokenizer() -> Tokenizer:
    from mainspring.families.llama import FAMILY as LLAMA

    texts = [text for row in pairs(60) for text in (row["article"], row["summary"])]
    return train_tokenizer(texts, 150, "unigram", LLAMA.tokens)


def decoder(seed: int = 0, tokenizer: Tokenizer | None = None) -> Bundle:
    """A decoder-only model (Llama) with a tokenizer in its own layout: `<s>` before each text."""
    from mainspring.families.llama import FAMILY as LLAMA

    assert isinstance(LLAMA.sizes, dict)
    small = {
        **LLAMA.sizes["llama-tiny"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    LLAMA.sizes["llama-nano"] = small
    try:
        return new_bundle("llama-nano", tokenizer or decoder_tokenizer(), seed)
    finally:
        del LLAMA.sizes["llama-nano"]
