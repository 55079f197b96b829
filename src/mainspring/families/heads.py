"""Which heads a checkpoint holds, and the `transformers` class that goes with them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mainspring import spec
from mainspring.families import Config


@dataclass(frozen=True)
class Stored:
    """How a head is stored: a tensor that tells it is there (`unless` there is that other one),
    and the ends of the names of the classes that have it, the plainest first."""

    marker: str
    classes: tuple[str, ...]
    unless: str | None = None


def _claims(config: Config, stored: Stored) -> bool:
    architecture = (config.get("architectures") or ("",))[0]
    return bool(architecture.endswith(stored.classes))


def find_heads(config: Config, names: Collection[str], table: Mapping[str, Stored]) -> list[str]:
    """The names of the heads that a checkpoint holds.

    Its tensors decide; where they could be those of two heads, the class it was saved from; the
    class alone where there are no tensors yet.
    """
    if not names:
        return [head for head, stored in table.items() if _claims(config, stored)]
    found = [head for head, s in table.items() if s.marker in names and s.unless not in names]
    markers = [table[head].marker for head in found]
    return [
        head
        for head in found
        if markers.count(table[head].marker) == 1 or _claims(config, table[head])
    ]


def saved_config(
    stems: Mapping[str, str], table: Mapping[str, Stored]
) -> Callable[[Config, spec.Model], Config]:
    """A `Family.saved_config` that names the class for the model's first head.

    `stems` are the beginnings of the class names by model type ("bert": "Bert").
    """

    def named(config: Config, model: spec.Model) -> Config:
        first = table.get(model.heads[0][0]) if model.heads else None
        if first is not None and _claims(config, first):
            return config
        end = "Model" if first is None else first.classes[0]
        return {**config, "architectures": [stems[config["model_type"]] + end]}

    return named
