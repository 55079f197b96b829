"""A Whisper so small that it writes in no time, as a folder with all that a checkpoint has."""

import json
from pathlib import Path
from typing import Any

import torch

from mainspring.checkpoints.bundle import Bundle
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.core.init import build
from mainspring.families.whisper import FAMILY

# 0-57 text, then as in Whisper's own vocabulary: what the tokens from 58 on stand for.

END, START, ENGLISH, TRANSLATE, PREVIOUS, SILENCE, PLAIN, TIME = 58, 59, 60, 64, 66, 67, 68, 69
LANGUAGES = ("en", "de", "fr", "zh")
POSITIONS, BINS = 20, 4  # a window has 40 frames
SETTINGS = {
    "suppress_tokens": [*range(START, PLAIN)],
    "begin_suppress_tokens": [5, END],
    "no_timestamps_token_id": PLAIN,
    "lang_to_id": {f"<|{code}|>": ENGLISH + i for i, code in enumerate(LANGUAGES)},
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSLATE + 1},
    "is_multilingual": True,
    "max_initial_timestamp_index": 5,
    "prev_sot_token_id": PREVIOUS,
    "max_length": 40,
    "alignment_heads": [[0, 1]],
}

SIZES = {
    "model_type": "whisper",
    "vocab_size": TIME + POSITIONS + 1,
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 28,
    "num_mel_bins": BINS,
    "max_source_positions": POSITIONS,
    "max_target_positions": 40,
    "tie_word_embeddings": False,
}

# A window is one second: 40 frames of 25 ms, and a timestamp for every 50 ms.
RATE, HOP = 16000, 400
FRONT_END = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": BINS,
    "sampling_rate": RATE,
    "hop_length": HOP,
    "n_fft": 400,
    "chunk_length": 1,
}
PIECES = ["Ġ", ",", ".", "'", "Ã", "©", *map(chr, range(ord("a"), ord("z") + 1))]
PIECES += [piece.upper() for piece in PIECES[6:]]
NAMED = {
    END: "<|endoftext|>",
    START: "<|startoftranscript|>",
    **{ENGLISH + i: f"<|{code}|>" for i, code in enumerate(LANGUAGES)},
    TRANSLATE: "<|translate|>",
    TRANSLATE + 1: "<|transcribe|>",
    PREVIOUS: "<|startofprev|>",
    SILENCE: "<|nospeech|>",
    PLAIN: "<|notimestamps|>",
}


def write_tokenizer(folder: Path) -> None:
    """A byte-level vocabulary of letters, laid out like Whisper's."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    assert len(PIECES) == END
    vocabulary = {piece: i for i, piece in enumerate(PIECES)} | {NAMED[END]: END}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in NAMED.values()])
    times = [f"<|{i * 0.02:.2f}|>" for i in range(POSITIONS + 1)]
    backend.add_tokens([AddedToken(time, normalized=False) for time in times])
    begin = [NAMED[START], NAMED[PLAIN]]
    backend.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", NAMED[END]],
        pair=[*begin, "$A", "$B", NAMED[END]],
        special_tokens=[(NAMED[i], i) for i in (START, PLAIN, END)],
    )
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "WhisperTokenizer", "add_bos_token": False}
    config |= {f"{part}_token": NAMED[END] for part in ("bos", "eos", "unk", "pad")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_checkpoint(folder: Path, seed: int = 6, **settings: Any) -> Bundle:
    """Writes a whole checkpoint of random weights whose choices are clear, timestamps and the end
    often among them. A setting of None is left out of generation_config.json."""
    stated = {k: v for k, v in {**SETTINGS, **settings}.items() if v is not None}
    special = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    special["decoder_start_token_id"] = START
    made = build(FAMILY.spec(SIZES, ()), seed).eval()
    torch.manual_seed(seed)
    for name, parameter in made.state_dict().items():
        if parameter.dim() == 1:
            parameter.copy_(parameter.round() + 0.2 * torch.randn_like(parameter).clamp(-2, 2))
        else:
            wide = name.startswith(("tables.", "decoder.added_positions", "heads."))
            parameter.normal_(0, 1.0 if wide else parameter.shape[-1] ** -0.5)
    out = made.state_dict()["heads.vocabulary.out.weight"]
    out[END] *= 1.6
    out[TIME:] *= 1.2
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    tokenizer = Tokenizer.open(folder)
    others = {"preprocessor_config.json": json.dumps(FRONT_END).encode()}
    others["normalizer.json"] = b'{"colour": "color"}'
    config = {**SIZES, **special, "architectures": [FAMILY.architecture]}
    bundle = Bundle(made, config, FAMILY, tokenizer, {**special, **stated}, others)
    bundle.save(folder)
    return bundle


def speech(seconds: float, seed: int = 0, rate: int = RATE) -> Any:
    """Samples of noise whose pitch and loudness change from moment to moment."""
    import numpy as np

    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate)) / rate
    steps = rng.uniform(100, 6000, 1 + int(8 * seconds))
    wave = np.sin(2 * np.pi * np.cumsum(steps[(8 * at).astype(int)]) / rate)
    loud = rng.uniform(0.0, 0.6, 1 + int(10 * seconds))[(10 * at).astype(int)]
    return (wave * loud + 0.01 * rng.standard_normal(len(at))).astype("f4")
