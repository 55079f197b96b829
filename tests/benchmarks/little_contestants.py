"""Contestants for the tests of turns: they import nothing, so their processes start at once."""

from benchmarks.turns import Turns


def squares(setup: int, turns: Turns) -> None:
    turns.answer(f"squares plus {setup}")
    for request in turns:
        turns.answer(request**2 + setup)


def breaks(setup: None, turns: Turns) -> None:
    turns.answer("breaks at its first turn")
    raise RuntimeError(f"cannot do {turns.take()}")


def never_starts(setup: None, turns: Turns) -> None:
    raise RuntimeError("nothing works")
