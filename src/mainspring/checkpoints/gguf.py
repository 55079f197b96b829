"""GGUF checkpoints, read: one file holds config, weights, tokenizer and chat template.

The weights come out as `transformers` would have saved them, under its names and in its layout, so
that the family's own weight map takes them from there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mainspring.checkpoints.gguf_file import GGUFFile
from mainspring.checkpoints.gguf_layout import (
    find_architecture,
    operation,
    read_config,
    their_name,
)
from mainspring.checkpoints.gguf_rope import FREQUENCIES
from mainspring.checkpoints.gguf_tokenizer import PREFIX, SPECIAL, read_tokenizer
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.errors import BadWeights, Missing, Refused

SUFFIX = ".gguf"
# Tokens that end a text beside the end token: of a turn, of a message.
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class GGUFCheckpoint:
    """What a GGUF file holds, as a checkpoint folder would: `config` is its config.json,
    `generation` its generation_config.json. `tensors()` yields the weights one by one."""

    stored: GGUFFile
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer: Tokenizer | None

    def names(self) -> list[tuple[str, str]]:
        """(GGUF's name, `transformers`' name) of each of the weights."""
        architecture = find_architecture(self.stored)
        # What is read into the config is no weight.
        return [(n, their_name(architecture, n)) for n in self.stored if n != FREQUENCIES]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(`transformers`' name, tensor), in memory of its own. Quantised tensors are float32."""
        architecture = find_architecture(self.stored)
        for name, theirs in self.names():
            how = operation(architecture, name, self.config)
            try:
                [tensor] = how.take(self.stored[name])
            except RuntimeError as error:
                raise BadWeights(
                    f"{self.stored.file}: tensor `{name}` does not have the heads that the file "
                    f"states ({error})"
                ) from None
            yield theirs, tensor


def find_gguf(place: Path) -> Path | None:
    """The GGUF file that `place` is, or that lies in the folder `place` where that has no weights
    of the ordinary kind; None where it is a folder of those."""
    if place.suffix == SUFFIX:
        return place
    files = sorted(place.glob(f"*{SUFFIX}"))
    if not files or any(place.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise Missing(
            f"{place}: has {len(files)} GGUF files; name the one to open: "
            f"{', '.join(file.name for file in files)}"
        )
    return files[0]


def read_gguf(file: Path) -> GGUFCheckpoint:
    """Opens a GGUF file of the Llama line or of Gemma.

    BadWeights, BadOption, Missing or Refused say what is wrong with it or not read here.
    """
    stored = GGUFFile(file)
    values = stored.metadata
    parts = values.get("split.count", 1)
    if parts > 1:
        raise Refused(
            f"{file}: one of {parts} parts of a model; join them into one file first: "
            f"llama-gguf-split --merge {file.name} whole.gguf"
        )
    config = read_config(stored, find_architecture(stored))
    tokenizer = read_tokenizer(values, file)
    ids = {
        f"{part}_token_id": values.get(f"{PREFIX}{name}_token_id")
        for part, name in SPECIAL.items()
        if part != "unk"
    }
    ends = [values[PREFIX + name] for name in ENDS if PREFIX + name in values]
    generation = {name: i for name, i in ids.items() if i is not None}
    if ends:
        generation["eos_token_id"] = ends[0] if len(set(ends)) == 1 else list(dict.fromkeys(ends))
    return GGUFCheckpoint(stored, {**config, **ids}, generation, tokenizer)
