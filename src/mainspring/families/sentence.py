"""Sentence encoders: how the files beside an encoder say that one vector is made of a text.

    modules.json             an encoder, a pooling, perhaps a normalisation, in this order
    1_Pooling/config.json    which vectors the pooling reads

(Reimers and Gurevych, 2019; the layout is that of the sentence-transformers library.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config

POOLS: dict[str, spec.Pool] = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
# The older way to name them: one switch each.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
HARMLESS = {"word_embedding_dimension", "embedding_dimension"}


def module_kinds(modules: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(kind, folder) of each module of a `modules.json`: "Transformer", "Pooling", "Normalize"."""
    return [(str(m["type"]).rsplit(".", 1)[-1], str(m.get("path", ""))) for m in modules]


def embedding_head(modules: Sequence[Mapping[str, Any]], pooling: Config) -> spec.EmbeddingHead:
    """The head that `modules.json` and its pooling's `config.json` describe.

    BadOption names a module, a key or a way of pooling that is not supported.
    """
    kinds = [kind for kind, _ in module_kinds(modules)]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise BadOption(
            f"modules.json: {', '.join(kinds)}: only an encoder, its pooling and a normalisation "
            "are supported"
        )
    return spec.EmbeddingHead(_pool(pooling), normalised=kinds[-1] == "Normalize")


def _pool(pooling: Config) -> spec.Pool:
    known = SWITCHES.keys() | HARMLESS | {"pooling_mode", "include_prompt"}
    for key in pooling:
        if key not in known:
            raise BadOption.unknown("key of the pooling's config.json", key, known)
    if not pooling.get("include_prompt", True):
        raise BadOption("the pooling's config.json: `include_prompt` false is not supported")
    stated = pooling.get("pooling_mode")
    modes = [stated] if isinstance(stated, str) else list(stated or ())
    modes += [mode for key, mode in SWITCHES.items() if pooling.get(key)]
    if len(modes) != 1 or modes[0] not in POOLS:
        raise BadOption(
            f"the pooling's config.json: {' and '.join(modes) or 'no way'} to pool; supported is "
            f"one of {', '.join(POOLS)}"
        )
    return POOLS[modes[0]]
