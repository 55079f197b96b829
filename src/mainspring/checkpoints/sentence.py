"""The files that make an encoder's folder one of a sentence encoder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mainspring import spec
from mainspring.checkpoints.config import CONFIG, read_json
from mainspring.errors import BadWeights, Missing
from mainspring.families.sentence import embedding_head, module_kinds

MODULES = "modules.json"
SETTINGS = ("sentence_bert_config.json", "config_sentence_transformers.json")


@dataclass(frozen=True)
class SentenceSettings:
    """What the files beside a sentence encoder say of the texts it reads.

    `limit` is the most tokens, special ones included (None where nothing is said); `prompts` are
    the texts put before others by purpose ("query", "document"), `default` the one without any;
    `lower` is whether letters lose their case.
    """

    limit: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str = ""
    lower: bool = False

    def read(self, text: str) -> str:
        return text.lower() if self.lower else text

    def prompt(self, purpose: str) -> str:
        """What is put before a text of this purpose."""
        return self.prompts.get(purpose, self.default)


def sentence_settings(files: Mapping[str, bytes]) -> SentenceSettings:
    """The settings in a checkpoint's files, by name; BadWeights where one cannot be read."""
    encoder, library = (_settings(files, name) for name in SETTINGS)
    prompts = {str(k): str(v) for k, v in (library.get("prompts") or {}).items()}
    limit = encoder.get("max_seq_length")
    return SentenceSettings(
        limit if isinstance(limit, int) else None,
        prompts,
        prompts.get(str(library.get("default_prompt_name")), ""),
        bool(encoder.get("do_lower_case")),
    )


def _settings(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise BadWeights(f"{name}: bad JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadWeights(f"{name}: not a JSON object")
    return found


def describes_embedding(name: str) -> bool:
    """Whether a file of this name, beside an encoder, says how it makes sentence vectors."""
    return name in (MODULES, *SETTINGS) or name.endswith(f"/{CONFIG}")


def read_embedding_head(folder: Path) -> tuple[spec.EmbeddingHead | None, list[str]]:
    """(the head that the folder describes, the names of the files that say so)."""
    file = folder / MODULES
    if not file.is_file():
        return None, []
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        pooling = next((path for kind, path in module_kinds(modules) if kind == "Pooling"), None)
    except (ValueError, TypeError, KeyError) as error:
        raise BadWeights(f"{file}: not a list of modules ({error})") from None
    if pooling is None or not (folder / pooling / CONFIG).is_file():
        raise Missing(f"{file}: no pooling with a {CONFIG}, which says how a text becomes a vector")
    name = f"{pooling}/{CONFIG}"
    head = embedding_head(modules, read_json(folder / name))
    return head, [MODULES, name, *(name for name in SETTINGS if (folder / name).is_file())]
