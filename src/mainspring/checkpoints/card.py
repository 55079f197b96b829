"""Model cards: the README.md of a saved checkpoint, with the YAML header that the hub reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mainspring import __version__

FILE = "README.md"

# Our tasks in the hub's words (huggingface.co/tasks).
PIPELINE_TAGS = {
    "summarize": "summarization",
    "translate": "translation",
    "generate": "text-generation",
}


@dataclass(frozen=True)
class Card:
    """What a model card says. Scores are metric name -> value; what is not known is left out.

    `license` and `data_license` are SPDX names in lower case; unknown ones are said to be so.
    `adapter` says that this is not a whole model but a change of `base_model`.
    """

    name: str
    task: str | None = None
    base_model: str | None = None
    data: str | None = None
    rows: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    command: str | None = None
    parameters: int | None = None
    languages: tuple[str, ...] = ()
    license: str | None = None
    data_license: str | None = None
    limits: tuple[str, ...] = ()
    adapter: bool = False


def card_text(card: Card) -> str:
    """README.md for the record: a YAML header, then what a reader asks first."""
    parts = [_header(card), f"# {card.name}", _opening(card)]
    if card.scores:
        rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in card.scores.items())
        parts += ["## Scores", "On held-out rows.", f"| metric | value |\n|---|---|\n{rows}"]
    if card.command:
        parts += ["## How it was made", f"```\n{card.command}\n```"]
    parts += ["## Licence", _licence(card), "## Limits", _limits(card)]
    return "\n\n".join(parts) + "\n"


def _header(card: Card) -> str:
    """YAML in its JSON subset, so that no value needs quoting rules of its own."""
    fields: dict[str, Any] = {
        "library_name": "peft" if card.adapter else "transformers",
        "tags": ["mainspring"],
        "pipeline_tag": PIPELINE_TAGS.get(card.task or ""),
        "language": list(card.languages),
        "license": card.license,
        # The hub wants a hub name here, not a folder.
        "base_model": card.base_model if _is_hub_name(card.base_model) else None,
    }
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value
    ]
    return "\n".join(["---", *lines, "---"])


def _is_hub_name(name: str | None) -> bool:
    return name is not None and name.count("/") == 1 and name[0] not in "./~"


def _opening(card: Card) -> str:
    what = "A LoRA adapter" if card.adapter else "A model"
    does = f"{what} for the task `{card.task}`" if card.task else what
    origin = f"fine-tuned from `{card.base_model}`" if card.base_model else "trained from scratch"
    sentences = [f"{does}, {origin}." if card.task or card.base_model else f"{does}."]
    if card.data:
        rows = f" ({card.rows:,} training rows)" if card.rows is not None else ""
        sentences.append(f"Data: `{card.data}`{rows}.")
    if card.parameters is not None:
        sentences.append(f"{card.parameters:,} parameters.")
    kind = (
        "an adapter in PEFT's format, which `mainspring.load` opens with its base model merged in, "
        "and PEFT on top of it."
        if card.adapter
        else "an ordinary checkpoint that `mainspring.load` and `transformers` both open."
    )
    sentences.append(f"Saved by Mainspring {__version__}; {kind}")
    return " ".join(sentences)


def _licence(card: Card) -> str:
    model = f"Model: {card.license}." if card.license else "Model: not stated."
    data = f"Data: {card.data_license}." if card.data_license else "Data: not stated."
    base = f" The terms of `{card.base_model}` apply to what it is made from."
    return f"{model} {data}" + (base if card.base_model else "")


def _limits(card: Card) -> str:
    known = card.limits or (
        "The scores hold for data like that above; other texts, languages and lengths were not "
        "measured.",
        "Texts it writes can be wrong, and can repeat what is in its training data.",
    )
    return "\n".join(f"- {line}" for line in known)
