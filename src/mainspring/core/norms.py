"""Normalisation leaves."""

from torch import nn

from mainspring import spec


def build_norm(norm: spec.Norm, width: int) -> nn.Module:
    match norm:
        case spec.LayerNorm(epsilon):
            return nn.LayerNorm(width, eps=epsilon)
        case spec.RMSNorm(epsilon):
            return nn.RMSNorm(width, eps=epsilon)


def build_optional_norm(norm: spec.Norm | None, width: int) -> nn.Module:
    return nn.Identity() if norm is None else build_norm(norm, width)
