"""A small checkpoint to save, open and spoil."""

from pathlib import Path

import pytest
import transformers

from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.core.init import build
from mainspring.families.t5 import FAMILY

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXTS = [
    "The quick brown fox jumps over the lazy dog.\nIt is not amused by  double spaces.",
    "摘要：本文研究了深度学习在自然语言处理中的应用，并给出了实验结果。",
    "Emoji 🙂 and flags 🇩🇪, naïve café, ½ cup; x² ≤ 10 µm.",
    "    indented code = f(x)\n\n\treturn None",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 400, "byte-bpe")


@pytest.fixture
def bundle(small_tokenizer: Tokenizer) -> Bundle:
    """A whole T5 of a few thousand weights."""
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": 448,
        "d_model": 12,
        "d_kv": 5,
        "d_ff": 16,
        "num_heads": 2,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "tie_word_embeddings": True,
        **ids,
    }
    model = build(FAMILY.spec(config, ()), seed=3).eval()
    return Bundle(model, config, FAMILY, small_tokenizer, dict(ids))


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """The bundle, saved."""
    bundle.save(tmp_path / "model")
    return tmp_path / "model"
