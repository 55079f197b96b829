"""Rotary positions as GGUF states them, beside what a `config.json` says and what a spec holds.

rope.freq_base                                      theta
rope.scaling.type, .factor, .original_context_length    "linear" and "yarn"
the tensor rope_freqs.weight                        Llama 3's bands: what each rate is divided by
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring import spec
from mainspring.core.positions import banded_rates
from mainspring.errors import BadOption

FREQUENCIES = "rope_freqs.weight"
YARN = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}
READ = (
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    *YARN,
)
# Every model with such bands that was published has these two.
LOW, HIGH, LENGTH = 1.0, 4.0, 8192


def rope_scaling(
    values: Mapping[str, Any], divisors: Tensor | None, theta: float, width: int, file: Path
) -> dict[str, Any] | None:
    """The `rope_scaling` of a config, from an architecture's values and `rope_freqs.weight`.

    `width` is that of a head. BadOption where the file asks for a kind that is not known here.
    """
    if divisors is not None:
        bands = find_bands(divisors, theta, width)
        if bands is None:
            raise BadOption(
                f"{file}: `{FREQUENCIES}` divides the rotary rates in a way that is not Llama 3's; "
                "such files are not read"
            )
        return {
            "rope_type": "llama3",
            "factor": bands.factor,
            "low_freq_factor": bands.low,
            "high_freq_factor": bands.high,
            "original_max_position_embeddings": bands.length,
        }
    kind, factor = values.get("rope.scaling.type", "none"), values.get("rope.scaling.factor", 1.0)
    if "rope.scale_linear" in values:  # the name of old files
        kind, factor = "linear", values["rope.scale_linear"]
    match kind:
        case "none":
            return None
        case "linear":
            return {"rope_type": "linear", "factor": factor} if factor != 1.0 else None
        case "yarn":
            length = values.get("rope.scaling.original_context_length")
            stated = {ours: values[key] for key, ours in YARN.items() if key in values}
            return {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": length,
                **stated,
            }
    raise BadOption(f"{file}: rotary positions of type `{kind}` are not read; known: linear, yarn")


def rope_values(scaling: spec.RotaryScaling | None) -> dict[str, Any]:
    """The values that state `scaling`; bands are stated by `band_divisors` instead."""
    match scaling:
        case spec.LinearScaling(factor):
            return {"rope.scaling.type": "linear", "rope.scaling.factor": float(factor)}
        case spec.YarnScaling() as yarn:
            return {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": float(yarn.factor),
                "rope.scaling.original_context_length": yarn.length,
                "rope.scaling.yarn_beta_fast": float(yarn.fast),
                "rope.scaling.yarn_beta_slow": float(yarn.slow),
            }
        case _:
            return {}


def _rates(theta: float, width: int) -> Tensor:
    return theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)


def band_divisors(bands: spec.BandedScaling, theta: float, width: int) -> Tensor:
    """What each rotary rate of a head is divided by (width / 2), float32."""
    rates = _rates(theta, width)
    return (rates / banded_rates(bands, rates)).float()


def find_bands(divisors: Tensor, theta: float, width: int) -> spec.BandedScaling | None:
    """The bands that divide the rates so; None where there are none.

    A file states only the divisors. Those between 1 and the factor tell the length that the model
    was first trained for; where there are none between, many lengths give the same divisors.
    """
    rates, factor = _rates(theta, width), float(divisors.max())
    if divisors.shape != rates.shape:
        return None
    lengths = [LENGTH]
    for divisor, rate in zip(divisors.tolist(), rates.tolist(), strict=True):
        if 1 < divisor < factor:
            kept = (1 / divisor - 1 / factor) / (1 - 1 / factor)
            lengths.append(round((LOW + kept * (HIGH - LOW)) * 2 * math.pi / rate))
    for length in dict.fromkeys(lengths):
        bands = spec.BandedScaling(factor, LOW, HIGH, length)
        if torch.allclose(band_divisors(bands, theta, width), divisors.float(), rtol=1e-4):
            return bands
    return None
