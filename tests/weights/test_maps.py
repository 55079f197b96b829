"""Weight maps: what does not fit is said at once, and saving undoes loading."""

import pytest
import torch

from mainspring.errors import BadWeights
from mainspring.weights.maps import (
    Ignored,
    Pair,
    is_ignored,
    same,
    to_ours,
    to_theirs,
)

PAIRS = [
    same("a.weight", "x.w"),
    same("b.weight", "y.w"),
    same("c.weight", "z.weight"),
    same("c.bias", "z.bias"),
]
SHAPES = {"a.weight": (2, 3), "b.weight": (4,), "c.weight": (2,), "c.bias": (2,)}


def whole() -> dict[str, torch.Tensor]:
    return {
        "x.w": torch.rand(2, 3),
        "y.w": torch.rand(4),
        "z.weight": torch.rand(2),
        "z.bias": torch.rand(2),
    }


def test_saving_undoes_loading() -> None:
    theirs = whole()
    again = to_theirs(PAIRS, to_ours(PAIRS, theirs, SHAPES))
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    theirs = whole() | {
        "x.w": torch.rand(3, 2),
        "extra.one": torch.rand(5),
        "old.two": torch.rand(1),
    }
    del theirs["y.w"], theirs["z.bias"]
    with pytest.raises(BadWeights) as caught:
        to_ours(PAIRS, theirs, SHAPES, (Ignored("old.*", "why not"),), "some/folder")
    text = str(caught.value)
    assert text.startswith("some/folder: 4 tensors do not fit")
    assert "missing     y.w" in text
    assert "missing     z.bias" in text
    assert "wrong shape x.w: the config asks for (2, 3), the file holds (3, 2)" in text
    assert "left over   extra.one (5,)" in text
    assert "old.two" not in text


def test_a_long_list_is_cut_and_counted() -> None:
    theirs = whole() | {f"more.{i}": torch.rand(1) for i in range(60)}
    with pytest.raises(BadWeights, match=r"60 tensors do not fit[\s\S]*… and 20 more"):
        to_ours(PAIRS, theirs, SHAPES)


def test_an_operation_that_fails_names_the_tensors() -> None:
    class Halves:
        def take(self, *theirs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(theirs[0].view(2, -1))

        def give(self, *ours: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.cat(ours),)

    pairs = [Pair(("a", "b"), ("x",), Halves())]
    shapes = {"a": (2,), "b": (2,)}
    theirs = {"x": torch.rand(4)}
    assert torch.equal(to_theirs(pairs, to_ours(pairs, theirs, shapes))["x"], theirs["x"])
    with pytest.raises(BadWeights, match=r"wrong shape x \(5,\)"):
        to_ours(pairs, {"x": torch.rand(5)}, shapes)


def test_ignored_names_are_shell_patterns() -> None:
    assert is_ignored("decoder.bias.3", (Ignored("decoder.bias.*", "unused"),))
    assert not is_ignored("encoder.bias.3", (Ignored("decoder.bias.*", "unused"),))
