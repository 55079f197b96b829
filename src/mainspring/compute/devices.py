"""Which device a model runs on."""

from typing import Literal

import torch

from mainspring.errors import BadOption, Missing

Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: str) -> torch.device:
    """The device meant by "auto" (a GPU where there is one), "cpu" or "cuda"."""
    if name not in ("auto", "cpu", "cuda"):
        raise BadOption.unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Missing("--device cuda: torch finds no GPU here; leave the option out or say cpu")
    return torch.device(name)
