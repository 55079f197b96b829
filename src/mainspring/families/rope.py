"""Rotary positions as a `config.json` states them, in the old and the new way.

"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}        to v4
"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}     v5
"""

import math
from collections.abc import Mapping
from typing import Any

from mainspring import spec
from mainspring.errors import BadOption
from mainspring.families import Config

# The keys of each type beside theta, with the value that holds where one is left out.
_NEEDED = object()
TYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": _NEEDED},
    "llama3": {
        "factor": _NEEDED,
        "low_freq_factor": _NEEDED,
        "high_freq_factor": _NEEDED,
        "original_max_position_embeddings": None,
    },
    "yarn": {
        "factor": _NEEDED,
        "original_max_position_embeddings": None,
        "attention_factor": None,
        "beta_fast": None,
        "beta_slow": None,
        "mscale": None,
        "mscale_all_dim": None,
        "truncate": True,
    },
}


def rotary(stated: Mapping[str, Any] | None, theta: float, positions: int) -> spec.Rotary:
    """The spec of what `stated` (a `rope_scaling` or `rope_parameters`) says.

    `theta` holds where it names none; `positions` is `max_position_embeddings`. BadOption names
    a type or key that is not known.
    """
    if not isinstance(stated, Mapping | None):
        raise BadOption(f"config.json: rotary positions must be an object, and are {stated!r}")
    stated = {key: value for key, value in (stated or {}).items() if value is not None}
    kind = stated.pop("rope_type", None) or stated.get("type", "default")
    stated.pop("type", None)
    theta = stated.pop("rope_theta", theta)
    if stated.pop("partial_rotary_factor", 1.0) != 1.0:
        raise BadOption("config.json: `partial_rotary_factor` other than 1.0 is not supported")
    if kind not in TYPES:
        raise BadOption(
            f"config.json: rotary positions of type {kind!r} (`rope_type`) are not supported; "
            f"known: {', '.join(TYPES)}"
        )
    for key in stated:
        if key not in TYPES[kind]:
            raise BadOption.unknown(f"key of {kind} rotary positions", key, TYPES[kind])
    p = {**TYPES[kind], **stated}
    absent = [key for key, value in p.items() if value is _NEEDED]
    if absent:
        raise BadOption(f"config.json: {kind} rotary positions need `{absent[0]}`")
    return spec.Rotary(float(theta), _scaling(kind, p, positions))


def stated_both_ways(config: Config) -> Config:
    """`config` with what its `rope_parameters` say in the old way too. `transformers` v4 does not
    look at them: it would turn queries and keys otherwise, without a word."""
    stated: dict[str, Any] = config.get("rope_parameters") or {}
    full: dict[str, Any] = stated.get("full_attention", stated)
    if "rope_theta" not in full:
        return config
    old = {key: value for key, value in full.items() if key != "rope_theta"}
    scales = old.get("rope_type", "default") != "default"
    added = {"rope_theta": full["rope_theta"], "rope_scaling": old if scales else None}
    if "rope_theta" in stated.get("sliding_attention", {}):
        added["rope_local_base_freq"] = stated["sliding_attention"]["rope_theta"]
    return {**added, **config}


def _scaling(kind: str, p: Mapping[str, Any], positions: int) -> spec.RotaryScaling | None:
    length = p.get("original_max_position_embeddings") or positions
    match kind:
        case "linear":
            return spec.LinearScaling(p["factor"])
        case "llama3":
            low, high = p["low_freq_factor"], p["high_freq_factor"]
            return spec.BandedScaling(p["factor"], low, high, length)
        case "yarn":
            magnitude = p["attention_factor"]
            if magnitude is None:
                some, all_ = p["mscale"], p["mscale_all_dim"]
                magnitude = _magnitude(p["factor"], some if some and all_ else 1.0)
                if some and all_:
                    magnitude /= _magnitude(p["factor"], all_)
            fast, slow = p["beta_fast"] or 32.0, p["beta_slow"] or 1.0
            return spec.YarnScaling(p["factor"], length, magnitude, fast, slow, p["truncate"])
        case _:
            return None


def _magnitude(factor: float, weight: float) -> float:
    """What the cosines and sines are multiplied by (Peng et al., 2024, section 3.4)."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
