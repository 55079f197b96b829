"""What all contestants share: texts, a tokenizer, and model folders that every peer can open.

Made anew in each run, but for what takes long and depends on nothing but its inputs (tokenizers,
pairs from docstrings, the taught model): that is kept under OUT/kept.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.entry import Context

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import Bundle
    from mainspring.checkpoints.tokenizer import Tokenizer
    from mainspring.training.rows import EncodedRows

ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG = "debian_synopsis_en", "scitldr_a"  # about 140 and 250 tokens a text
SEED = 17
Pair = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """Texts and their summaries, for training and for testing."""

    name: str
    train: list[Pair]
    test: list[Pair]

    @cached_property
    def hash(self) -> str:
        text = json.dumps([self.name, self.train, self.test])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_data(given: Path | None) -> Path | None:
    """The folder of real data sets: as given, or of MAINSPRING_DATA, or beside the checkout."""
    if given is None:
        given = Path(os.environ.get("MAINSPRING_DATA", ROOT.parent / "shared" / "data"))
    return given if (given / "summarization" / SHORT).is_dir() else None


def corpus(context: Context, name: str = SHORT) -> Corpus:
    """A data set of summaries; without the data folder pairs from docstrings (PEP 257)."""
    if context.data is not None and (context.data / "summarization" / name).is_dir():
        folder, text = context.data / "summarization" / name, "document"
    else:
        name, text = "docstrings of the installed packages", "text"
        folder = context.out / "kept" / "docstrings"
        if not (folder / "test.jsonl").is_file():
            context.say("no data folder: collecting docstring pairs instead")
            script = ROOT / "examples" / "docstrings.py"
            subprocess.run([sys.executable, script, folder], check=True, stdout=subprocess.DEVNULL)
    return Corpus(name, *(_pairs(folder / f"{split}.jsonl", text) for split in ("train", "test")))


def _pairs(file: Path, text: str) -> list[Pair]:
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row[text], row["summary"]) for row in rows if row[text] and row["summary"]]


def tokenizer(context: Context, texts: Corpus, vocabulary: int = 8000) -> "Tokenizer":
    """A unigram tokenizer trained on the training texts."""
    from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer

    folder = context.out / "kept" / f"tokenizer-{vocabulary}-{texts.hash}"
    if not (folder / "tokenizer_config.json").is_file():
        context.say(f"training a tokenizer of {vocabulary} tokens on {texts.name}")
        made = train_tokenizer((text for pair in texts.train for text in pair), vocabulary)
        folder.mkdir(parents=True, exist_ok=True)
        made.save(folder)
    found = Tokenizer.open(folder)
    assert found is not None
    return found


def encode(texts: Sequence[Pair], by: "Tokenizer", source: int, target: int) -> "EncodedRows":
    """The pairs as token ids, within limits; every row ends in the end token."""
    from mainspring.formulations import Limits, Setup
    from mainspring.formulations.sequence_to_sequence import FORMULATION
    from mainspring.training.rows import EncodedRows

    pairs = [{"text": text, "target": target} for text, target in texts]
    return EncodedRows(FORMULATION.encode(pairs, by, Setup(Limits(source, target))))


def new_model(
    size: str, by: "Tokenizer", *, rows: int | None = None, dropout: float = 0.1
) -> "Bundle":
    """A T5 with fresh weights. `rows` is the size of its vocabulary table, by default the
    tokenizer's."""
    from mainspring.checkpoints.bundle import Bundle, new_bundle
    from mainspring.core.init import build

    made = new_bundle(size, by, SEED)
    rows = rows or made.config["vocab_size"]
    config = {**made.config, "vocab_size": rows, "dropout_rate": dropout}
    model = build(made.family.spec(config, ()), SEED)
    return Bundle(model.eval(), config, made.family, by, made.generation)


def saved(context: Context, name: str, bundle: "Bundle") -> Path:
    """The bundle as a folder that every peer opens."""
    folder = context.out / "models" / name
    bundle.save(folder)
    return folder


# The shape of SmolLM2-135M (its config.json), for machines where the starter is not on the disk.
SMOLLM2_135M = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}


def starter(context: Context, *, with_bos: bool = False) -> "tuple[Bundle, str]":
    """The starter, or else a model of its shape with fresh weights, and whose weights these are.
    `with_bos` is whether the fresh one names a token that texts begin with (that of padding)."""
    from mainspring import registry
    from mainspring.checkpoints.bundle import Bundle, load
    from mainspring.core.init import build
    from mainspring.errors import MainspringError

    try:
        return load("starter"), "The starter's weights"
    except MainspringError:
        by = tokenizer(context, corpus(context))
        family = registry.find("families", "llama")
        bos = by.pad_id if with_bos else None
        config = {**SMOLLM2_135M, "eos_token_id": by.eos_id, "bos_token_id": bos}
        model = build(family.spec(config, ()), SEED).eval()
        generation = {"eos_token_id": by.eos_id, "pad_token_id": by.pad_id}
        return Bundle(model, config, family, by, generation), "Fresh weights of its shape"


def chat_model(context: Context) -> tuple[Path, str]:
    """The folder of `starter`, and whose weights these are."""
    bundle, weights = starter(context, with_bos=True)
    return saved(context, "chat-135m", bundle), weights
