"""The files that make an encoder's folder one of a sentence encoder."""

import json
from pathlib import Path

from mainspring import spec
from mainspring.checkpoints.config import CONFIG, read_json
from mainspring.errors import BadWeights, Missing
from mainspring.families.sentence import embedding_head, module_kinds

MODULES = "modules.json"
SETTINGS = ("sentence_bert_config.json", "config_sentence_transformers.json")


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
