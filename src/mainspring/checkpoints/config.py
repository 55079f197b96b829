"""The JSON files of a checkpoint, and the family that `config.json` belongs to. No torch here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mainspring import registry
from mainspring.errors import BadOption, BadWeights, Missing, Refused
from mainspring.families import Family
from mainspring.generation.options import generation_keys

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. BadWeights says where the text stops being one."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadWeights(
            f"{file}:{error.lineno}:{error.colno}: not valid JSON ({error.msg}); "
            "copy or download the file again"
        ) from None
    except UnicodeDecodeError as error:
        raise BadWeights(f"{file}: not UTF-8 text (byte {error.start})") from None
    if not isinstance(data, dict):
        raise BadWeights(f"{file}: holds a JSON {type(data).__name__} where an object is expected")
    return data


def json_text(data: Mapping[str, Any]) -> str:
    """JSON for a file that people read too."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as it is, once it asks for nothing that is refused."""
    file = folder / CONFIG
    if not file.is_file():
        raise Missing(f"{folder}: no {CONFIG}; a checkpoint folder has one beside its weights")
    config = read_json(file)
    refuse_remote_code(config, file)
    return config


def refuse_remote_code(config: dict[str, Any], file: Path) -> None:
    """Refused where the file points at Python code of its own (`auto_map`)."""
    if config.get("auto_map"):
        raise Refused(
            f"{file}: `auto_map` asks for code that comes with the checkpoint, and such code is "
            "never run here. If the weights are those of a plain "
            f"{config.get('model_type', 'known')} model, remove `auto_map` from the file"
        )


def find_family(config: dict[str, Any], place: Path) -> Family:
    """The family whose `model_types` hold the config's. BadOption names the nearest known one."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise Missing(f"{place}: no `model_type`, which says what kind of model this is")
    known: list[str] = []
    for name in registry.names("families"):
        family: Family = registry.find("families", name)
        if model_type in family.model_types:
            return family
        known += family.model_types
    raise BadOption(f"{place}: {BadOption.unknown('model_type', model_type, known)}")


def read_generation(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """`generation_config.json`, or in older checkpoints the same keys out of `config.json`."""
    file = folder / GENERATION_CONFIG
    if file.is_file():
        return read_json(file)
    return generation_keys(config)
