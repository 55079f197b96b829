"""What a model can be written as for other programs: one table, a line a format.

A new format is a function that writes a bundle to a place, and its line here; the verb `export`,
`mainspring models` and the errors read the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import BadOption
from mainspring.extras import GGUF, Extra
from mainspring.families import Family

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import Bundle

TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # ours, and torch's


@dataclass(frozen=True)
class Format:
    """A form that a model can be written in.

    `types` are what its weights can be stored as, the first unless told otherwise. `suffix` is
    that of its file, "" where it is a folder. `serves(family)` is whether any model of the family
    can be written so, `write(bundle, place, type, card)` writes one whole or not at all; `card` is
    the text of a README, where there is room for one. `needs` is the extra that brings the writer.
    """

    title: str
    types: tuple[str, ...]
    suffix: str
    serves: Callable[[Family], bool]
    write: "Callable[[Bundle, Path, str, str], None]"
    needs: Extra | None = None


def _in_gguf(family: Family) -> bool:
    from mainspring.checkpoints.gguf_layout import ARCHITECTURES

    known = {kind for architecture in ARCHITECTURES.values() for kind in architecture.model_types}
    return bool(known & {*family.model_types})


def _write_gguf(bundle: "Bundle", place: Path, type: str, card: str) -> None:
    del card
    bundle.save_gguf(place, type)


def _write_huggingface(bundle: "Bundle", place: Path, type: str, card: str) -> None:
    import torch

    dtype: torch.dtype = getattr(torch, TYPES[type])
    largest = torch.finfo(dtype).max
    for name, tensor in bundle.model.state_dict().items():
        if float(tensor.abs().max()) > largest:
            raise BadOption(f"`{name}` has numbers beyond float16's {largest:.0f}; write bf16")
    bundle.save(place, card, dtype=dtype)


FORMATS = {
    "huggingface": Format(
        "a folder that transformers opens",
        ("f32", "bf16", "f16"),
        "",
        lambda family: True,
        _write_huggingface,
    ),
    "gguf": Format(
        "a file that llama.cpp and its like open",
        ("q8_0", "f16", "bf16", "f32"),
        ".gguf",
        _in_gguf,
        _write_gguf,
        GGUF,
    ),
}


def stored_bytes(place: Path, base: str | Path | None = None) -> int:
    """The size of a checkpoint's weights on the disk; of an adapter's with those of its base."""
    from mainspring.checkpoints import adapters
    from mainspring.checkpoints.adapted import base_of
    from mainspring.checkpoints.gguf import find_gguf
    from mainspring.checkpoints.locate import locate
    from mainspring.weights.files import weight_files

    if adapters.is_adapter(place):
        own = (place / adapters.WEIGHTS).stat().st_size
        return own + stored_bytes(locate(base_of(place, base)))
    file = find_gguf(place)
    files = weight_files(place) if file is None else [file]
    return sum(file.stat().st_size for file in files)
