"""`export`: writes a model for other programs, in one of the formats of `checkpoints.exporting`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mainspring.errors import BadOption
from mainspring.verbs import check_values
from mainspring.verbs.output import json_line

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import Bundle


@dataclass(frozen=True)
class Exported:
    """A model that was written to `out`. `bytes` are those of its weights there, `bytes_before`
    those that they had before, an adapter's with its base model's."""

    out: str
    format: str
    type: str
    bytes: int
    model: str
    bytes_before: int
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json_line(self)
            return
        yield f"{self.out}: {self.format}, {self.type}, {self.bytes / 1e6:,.1f} MB"
        yield f"before: {self.bytes_before / 1e6:,.1f} MB in {self.model}"


def export(
    format: Literal["gguf", "huggingface"],
    /,
    *,
    model: str | Path,
    out: str | Path,
    type: Literal["f32", "f16", "bf16", "q8_0"] | None = None,
    base: str | Path | None = None,
) -> Exported:
    """Write a model for other programs.

    `gguf` is one file with tokenizer and chat template, which llama.cpp and its like open (the
    Llama line and Gemma); `huggingface` a plain folder, which transformers opens. A LoRA adapter
    is merged into its base model first, and a GGUF file becomes a folder. Nothing is written over.

    Parameters
    ----------
    format
        What to write.
    model
        A folder that `fit` wrote, an adapter's too, a GGUF file, or a hub name.
    out
        The file (.gguf) or the folder to write.
    type
        What weights are stored as: by default q8_0 (8 bits) in GGUF, f32 in a folder.
    base
        Where an adapter's base model lies, if not where the adapter says.
    """
    check_values(export, {"format": format, "type": type})
    from mainspring.checkpoints.bundle import load
    from mainspring.checkpoints.exporting import FORMATS, stored_bytes
    from mainspring.checkpoints.locate import locate

    chosen, place = FORMATS[format], Path(out)
    kind = type or chosen.types[0]
    if kind not in chosen.types:
        raise BadOption(f"--type {kind}: `{format}` stores {', '.join(chosen.types)}")
    _check_out(place, chosen.suffix)
    if chosen.needs is not None:
        chosen.needs.check()
    found = locate(model)
    bundle = load(model, base=base)
    chosen.write(bundle, place, kind, _card(bundle, found, place.name, base))
    before = stored_bytes(found, base)
    return Exported(str(out), format, kind, stored_bytes(place), str(model), before)


def _check_out(place: Path, suffix: str) -> None:
    """BadOption where something is there already, or the name is not that of such a file."""
    if suffix and place.suffix != suffix:
        raise BadOption(f"--out {place}: name a file that ends in {suffix}")
    if place.is_dir() and not suffix:
        if any(place.iterdir()):
            raise BadOption(f"--out {place} is not empty; name a new folder")
    elif place.exists():
        raise BadOption(f"--out {place} is already there; name another or remove it")


def _card(bundle: "Bundle", found: Path, name: str, base: str | Path | None) -> str:
    """The model's own card; an adapter's no longer fits once it is merged."""
    from mainspring.checkpoints.adapted import base_of
    from mainspring.checkpoints.adapters import is_adapter
    from mainspring.checkpoints.card import FILE, Card, card_text
    from mainspring.tasks.settings import FILE as TASK_FILE

    own, adapted = found / FILE, is_adapter(found)
    if not adapted and own.is_file():
        return own.read_text(encoding="utf-8")
    told = bundle.extra_files.get(TASK_FILE)
    return card_text(
        Card(
            name,
            task=None if told is None else json.loads(told).get("task"),
            base_model=str(base_of(found, base)) if adapted else None,
            parameters=sum(p.numel() for p in bundle.model.parameters()),
        )
    )
