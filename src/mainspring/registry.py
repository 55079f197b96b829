"""What there is: tasks and families by name, ours and those of other packages.

Built-in entries are a literal table of `name -> "module:attribute"`, imported when asked for. Other
packages add theirs by entry points in the groups `mainspring.tasks` and `mainspring.families`.
Standard library only.
"""

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from mainspring.errors import BadOption, Mismatch

TASKS = {
    "summarize": "mainspring.tasks.summarize:TASK",
    "translate": "mainspring.tasks.translate:TASK",
    "generate": "mainspring.tasks.generate:TASK",
    "answer": "mainspring.tasks.answer:TASK",
    "classify": "mainspring.tasks.classify:TASK",
    "entities": "mainspring.tasks.entities:TASK",
    "relations": "mainspring.tasks.relations:TASK",
    "transcribe": "mainspring.tasks.transcribe:TASK",
    "pretrain": "mainspring.tasks.pretrain:TASK",
}

FAMILIES = {
    "t5": "mainspring.families.t5:FAMILY",
    "bert": "mainspring.families.bert:FAMILY",
    "roberta": "mainspring.families.roberta:FAMILY",
    "distilbert": "mainspring.families.distilbert:FAMILY",
    "gpt2": "mainspring.families.gpt2:FAMILY",
    "llama": "mainspring.families.llama:FAMILY",
    "gemma": "mainspring.families.gemma:FAMILY",
    "bart": "mainspring.families.bart:FAMILY",
    "vit": "mainspring.families.vit:FAMILY",
    "deit": "mainspring.families.vit:DEIT",
    "yolos": "mainspring.families.vit:YOLOS",
    "whisper": "mainspring.families.whisper:FAMILY",
}

BUILT_IN = {"tasks": TASKS, "families": FAMILIES}


@cache
def table(kind: str) -> dict[str, str]:
    """All entries of "tasks" or "families": name -> "module:attribute"."""
    entries = dict(BUILT_IN[kind])
    for entry in entry_points(group=f"mainspring.{kind}"):
        if entry.name in entries:
            raise Mismatch(
                f"two {kind} are called `{entry.name}`: {entries[entry.name]} and {entry.value}; "
                "uninstall one of the packages"
            )
        entries[entry.name] = entry.value
    return entries


def names(kind: str) -> list[str]:
    """The names registered, in a stable order: ours first."""
    return list(table(kind))


def find(kind: str, name: str) -> Any:
    """The object registered under `name`; BadOption offers the nearest name."""
    entries = table(kind)
    if name not in entries:
        raise BadOption.unknown({"tasks": "task", "families": "family"}[kind], name, entries)
    module, _, attribute = entries[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
