"""The contracts of Mainspring, kept by a task and a family from elsewhere."""

from mainspring.testing import check_family, check_task
from mainspring.verbs.listing import models, tasks

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ROWS = [
    {"text": " ".join(words), "backwards": " ".join(reversed(words))}
    for i in range(10)
    for words in [WORDS[i:] + WORDS[: i // 2], WORDS[: i + 1]]
]


def test_the_family_keeps_the_contract() -> None:
    check_family("toy")


def test_the_task_keeps_the_contract() -> None:
    check_task("backwards", ROWS, from_scratch="toy-nano")


def test_both_are_listed() -> None:
    assert any("backwards" in line for line in tasks().lines(as_json=False))
    assert any("toy-nano" in line for line in models().lines(as_json=False))
