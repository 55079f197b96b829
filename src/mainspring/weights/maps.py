"""Weight maps: a checkpoint's tensor names laid beside ours, read in both directions.

A map is a list of `Pair`s for exactly one spec. `to_ours` and `to_theirs` walk the same list, so
that saving undoes loading. Every tensor is accounted for: ours are all filled, theirs are all used
or ignored with a reason, and all that does not fit is reported at once.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mainspring.errors import BadWeights

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Operation(Protocol):
    """A change of layout that can be undone exactly."""

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        """Theirs to ours."""

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        """Ours to theirs."""


@dataclass(frozen=True)
class Same:
    """The tensor as it is."""

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return theirs

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        return ours


SAME = Same()


@dataclass(frozen=True)
class Transposed:
    """A matrix stored the other way round."""

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(tensor.T for tensor in theirs)

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(tensor.T for tensor in ours)


@dataclass(frozen=True)
class Joined:
    """Several of ours of equal size stored as one, side by side along its `axis`; `transposed`
    where each is a matrix stored the other way round."""

    parts: int
    axis: int = 0
    transposed: bool = False

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        (whole,) = theirs
        parts = whole.chunk(self.parts, self.axis)
        return tuple(part.T for part in parts) if self.transposed else parts

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        import torch

        return (torch.cat([part.T if self.transposed else part for part in ours], self.axis),)


@dataclass(frozen=True)
class SkippedRows:
    """A table stored with `rows` at its start that nobody reads; they come back as zeros."""

    rows: int

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(tensor[self.rows :] for tensor in theirs)

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        import torch

        unread = [tensor.new_zeros(self.rows, *tensor.shape[1:]) for tensor in ours]
        return tuple(torch.cat(both) for both in zip(unread, ours, strict=True))


@dataclass(frozen=True)
class LeadingAxis:
    """Stored with an axis of size 1 before the others; `parts` such tables are one of ours."""

    parts: int = 1

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        import torch

        return (torch.cat([part[0] for part in theirs]),)

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        (table,) = ours
        return table[None].chunk(self.parts, 1)


@dataclass(frozen=True)
class Stacked:
    """Several of ours stored as one, each with an axis of size 1 before its own, along a new first
    axis."""

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        (whole,) = theirs
        return tuple(whole[:, 0])

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        import torch

        return (torch.stack(ours)[:, None],)


@dataclass(frozen=True)
class Shifted:
    """Stored as the difference from `by`. Computed in float32: exact to its last digit, which is
    finer than any half precision the difference was stored in."""

    by: float

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(tensor.float() + self.by for tensor in theirs)

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        return tuple(tensor.float() - self.by for tensor in ours)


@dataclass(frozen=True)
class Repeated:
    """One of ours stored under several names, of which the first is read."""

    def take(self, *theirs: "Tensor") -> "tuple[Tensor, ...]":
        return theirs[:1]

    def give(self, *ours: "Tensor") -> "tuple[Tensor, ...]":
        (tensor,) = ours
        return tensor, tensor.clone()


@dataclass(frozen=True)
class Pair:
    """Some of our tensors and the checkpoint's tensors that hold the same numbers."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    operation: Operation = SAME


@dataclass(frozen=True)
class Ignored:
    """Checkpoint tensors (a shell-style pattern) that are not read, and why that loses nothing;
    where that hangs on what they hold, `holds` tells whether they do."""

    pattern: str
    reason: str
    holds: "Callable[[Tensor], bool] | None" = None


def same(ours: str, theirs: str) -> Pair:
    return Pair((ours,), (theirs,))


def is_ignored(name: str, ignored: Iterable[Ignored]) -> bool:
    return any(fnmatch.fnmatchcase(name, entry.pattern) for entry in ignored)


def is_sinusoid(table: "Tensor") -> bool:
    """Whether a table (positions, width) holds the sines and cosines that are added where positions
    are fixed (Vaswani et al., 2017, 3.5), sines first, as exactly as 16 bits hold them."""
    import torch

    length, width = table.shape
    step = torch.arange(width // 2, dtype=torch.float32)
    angle = torch.arange(length)[:, None] / 10_000.0 ** (2 * step / width)
    expected = torch.cat([angle.sin(), angle.cos()], -1)
    same_shape = expected.shape == table.shape
    return same_shape and bool((table.float() - expected).abs().max() < 1e-2)


def to_ours(
    pairs: Iterable[Pair],
    theirs: "Mapping[str, Tensor]",
    expected: Mapping[str, Shape],
    ignored: Iterable[Ignored] = (),
    source: str = "the checkpoint",
) -> "dict[str, Tensor]":
    """Our tensors, filled from theirs.

    `expected` are the shapes of all our tensors. BadWeights lists, at once, every tensor that is
    missing, left over or of a wrong shape.
    """
    ignored = tuple(ignored)
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    problems: list[str] = []
    for pair in pairs:
        absent = [name for name in pair.theirs if name not in theirs]
        if absent:
            problems += [f"missing     {name}" for name in absent]
            used.update(pair.theirs)
            continue
        used.update(pair.theirs)
        try:
            taken = pair.operation.take(*(theirs[name] for name in pair.theirs))
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(f"{name} {tuple(theirs[name].shape)}" for name in pair.theirs)
            problems.append(f"wrong shape {shapes}: {error}")
            continue
        for name, tensor in zip(pair.ours, taken, strict=True):
            if tuple(tensor.shape) != tuple(expected[name]):
                problems.append(
                    f"wrong shape {', '.join(pair.theirs)}: the config asks for "
                    f"{tuple(expected[name])}, the file holds {tuple(tensor.shape)}"
                )
            ours[name] = tensor
    left = sorted(name for name in theirs if name not in used and not is_ignored(name, ignored))
    problems += [f"left over   {name} {tuple(theirs[name].shape)}" for name in left]
    problems += [
        f"differs     {name} does not hold {entry.reason}, and is not learned here"
        for entry in ignored
        if entry.holds is not None
        for name in fnmatch.filter(sorted(theirs.keys() - used), entry.pattern)
        if not entry.holds(theirs[name])
    ]
    if problems:
        shown = problems[:40] + ([f"… and {len(problems) - 40} more"] if len(problems) > 40 else [])
        raise BadWeights(
            f"{source}: {len(problems)} tensors do not fit the model its config describes\n  "
            + "\n  ".join(shown)
            + "\nIs config.json from the same checkpoint as the weights?"
        )
    unmapped = expected.keys() - ours.keys()
    assert not unmapped, f"the weight map leaves our tensors unfilled: {sorted(unmapped)[:5]}"
    return ours


def to_theirs(pairs: Iterable[Pair], ours: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The checkpoint's tensors, from ours: every pair read backwards."""
    theirs: dict[str, Tensor] = {}
    for pair in pairs:
        given = pair.operation.give(*(ours[name] for name in pair.ours))
        theirs.update(zip(pair.theirs, given, strict=True))
    return theirs
