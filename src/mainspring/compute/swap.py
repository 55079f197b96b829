"""Replacing modules of a model from outside: the seam of precision, LoRA and their like.

The core holds its weights in a closed set of leaves, and its fusible parts (q/k/v, gate/up) in
small modules of their own; whatever takes the place of one needs only the same call.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Match = type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Swapped:
    """What `swap` took out of `model`, by name. Keeping it keeps the old weights in memory."""

    model: nn.Module
    originals: dict[str, nn.Module]

    def undo(self) -> None:
        """Puts the modules back that were there before."""
        for name, module in self.originals.items():
            place(self.model, name, module)


def place(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` at the dotted `name`."""
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent).register_module(last, module)


def swap(
    model: nn.Module,
    match: Match,
    make: Callable[[str, nn.Module], nn.Module],
    *,
    keep: bool = True,
) -> Swapped:
    """Replaces, in place, every module that matches by what `make(name, module)` returns.

    `match` is a type, some types, or a test of (name, module). The insides of a module that
    matched are not looked at. With `keep=False` the originals are let go one by one, so that
    memory never holds all old and all new weights; then there is nothing to undo.
    """
    matches = _matching_types(match) if isinstance(match, type | tuple) else match
    originals: dict[str, nn.Module] = {}
    for name in _found(model, matches):
        old = model.get_submodule(name)
        new = make(name, old)
        new.train(old.training)
        place(model, name, new)
        if keep:
            originals[name] = old
        del old
    return Swapped(model, originals)


def _matching_types(types: type | tuple[type, ...]) -> Callable[[str, nn.Module], bool]:
    return lambda name, module: isinstance(module, types)


def _found(model: nn.Module, matches: Callable[[str, nn.Module], bool]) -> list[str]:
    found: list[str] = []

    def look(name: str, module: nn.Module) -> None:
        for last, child in module.named_children():
            full = f"{name}.{last}" if name else last
            if matches(full, child):
                found.append(full)
            else:
                look(full, child)

    look("", model)
    return found
