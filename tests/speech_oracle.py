"""A small Whisper with random weights that writes timestamps and ends its texts: `transformers`'
and ours."""

import tempfile
import warnings
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from mainspring.checkpoints.bundle import Bundle, load
from whispering import BINS, END, ENGLISH, PLAIN, SETTINGS, SIZES, START, TIME, TRANSLATE

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def config(**more: Any) -> Any:
    sizes = {key: value for key, value in SIZES.items() if key != "model_type"}
    special = {"bos_token_id": END, "eos_token_id": END, "decoder_start_token_id": START}
    # Padding and the end are one token, as in the published checkpoints.
    special |= {"pad_token_id": END, "suppress_tokens": None, "begin_suppress_tokens": None}
    return transformers.WhisperConfig(**{**sizes, **special, **more})


def model(seed: int, settings: dict[str, Any], **more: Any) -> Any:
    """A model of `transformers` with clear choices, timestamps and the end often among them."""
    torch.manual_seed(seed)
    theirs = transformers.WhisperForConditionalGeneration(config(**more)).eval()
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            parameter.data = parameter.data.round() + 0.2 * torch.randn_like(parameter).clamp(-2, 2)
        else:
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5)
    theirs.model.decoder.embed_tokens.weight.data.normal_(0, 1)
    theirs.model.decoder.embed_positions.weight.data.normal_(0, 1)
    theirs.proj_out.weight.data.normal_(0, 1)
    theirs.proj_out.weight.data[END] *= 1.6
    theirs.proj_out.weight.data[TIME:] *= 1.2
    for name, value in settings.items():
        setattr(theirs.generation_config, name, value)
    return theirs


@cache
def pair(seed: int, kind: str = "multilingual") -> tuple[Any, Bundle]:
    """`kind`: "multilingual", "english" (one language, as tiny.en), or "old" (a checkpoint of the
    first days, with `forced_decoder_ids` and nothing about languages)."""
    settings = dict(SETTINGS)
    if kind != "multilingual":
        for name in ("lang_to_id", "task_to_id", "is_multilingual"):
            settings.pop(name)
    if kind == "english":
        settings |= {"is_multilingual": False, "forced_decoder_ids": [[1, PLAIN]]}
    if kind == "old":
        settings["forced_decoder_ids"] = [[1, ENGLISH + 1], [2, TRANSLATE], [3, PLAIN]]
    theirs = model(seed, settings)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(folder)
        return theirs, load(folder)


def sound(rows: int, frames: int, seed: int = 0) -> Tensor:
    """Random frames that differ much from one another."""
    return 3 * torch.randn(rows, BINS, frames, generator=torch.Generator().manual_seed(seed))


def mask(frames: int, *lengths: int) -> Tensor:
    return (torch.arange(frames) < torch.tensor(lengths)[:, None]).long()


def generated(
    theirs: Any, features: Tensor, keep: Tensor | None, **options: Any
) -> list[list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs.generate(features, attention_mask=keep, **options).tolist()
