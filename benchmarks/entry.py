"""The records of the benchmark: what an entry is, what it is given and what it gives back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread


@dataclass(frozen=True)
class Run:
    """Whole optimizer steps: `tokens` those of a step; `size` names the model, "" where the entry
    has its own; `rounds` are the turns that each contestant takes of `steps` steps."""

    steps: int
    tokens: int
    size: str = ""
    rounds: int = 1


@dataclass(frozen=True)
class Writing:
    """Decoding: `new_tokens` by an encoder-decoder, `chat_tokens` by a decoder; `extra_rounds` for
    what no goal is set for."""

    rounds: int
    extra_rounds: int
    new_tokens: int
    chat_tokens: int


@dataclass(frozen=True)
class Card:
    """What is done on a GPU; `static` names the jobs for which transformers may try its static
    cache."""

    sizes: tuple[str, ...]
    tokens: int
    steps: int
    rounds: int
    teaching_steps: int
    new_tokens: int
    static: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """How much work a run does. `teaching` makes the model that then writes, `options` are those
    of the command line that it comes of; `rouge_rows` are written by everyone, `scored_rows` by us
    in each precision."""

    name: str
    curve: Run
    rouge_rows: int
    scored_rows: int
    teaching: Run
    training: Run
    lora: Run
    writing: Writing
    product_rounds: int
    cold_rounds: int
    gpu: Card
    options: str = ""

    def in_rounds(self, rounds: int) -> "Scale":
        """The same with so many turns for each contestant."""
        return replace(
            self,
            name=f"{self.name}, {rounds} rounds",
            training=replace(self.training, rounds=rounds),
            lora=replace(self.lora, rounds=rounds),
            writing=replace(
                self.writing,
                rounds=rounds,
                extra_rounds=min(rounds, self.writing.extra_rounds),
            ),
            product_rounds=rounds,
            cold_rounds=rounds,
            gpu=replace(self.gpu, rounds=rounds),
            options=f"{self.options} --rounds {rounds}",
        )


FULL = Scale(
    name="full",
    curve=Run(480, 1024, "t5-tiny"),
    rouge_rows=200,
    scored_rows=1000,
    teaching=Run(200, 4096),
    training=Run(2, 4096, "t5-small", rounds=7),
    lora=Run(2, 2048, rounds=5),
    writing=Writing(5, 3, new_tokens=64, chat_tokens=96),
    product_rounds=7,
    cold_rounds=5,
    gpu=Card(("t5-small", "t5-base"), 32_768, 20, 3, 200, 128, ("1 row", "32 rows")),
)
QUICK = Scale(
    name="quick",
    curve=Run(16, 512, "t5-tiny"),
    rouge_rows=24,
    scored_rows=24,
    teaching=Run(40, 1024),
    training=Run(1, 2048, "t5-small", rounds=3),
    lora=Run(1, 1024, rounds=2),
    writing=Writing(2, 1, new_tokens=16, chat_tokens=24),
    product_rounds=3,
    cold_rounds=2,
    gpu=Card(("t5-small",), 32_768, 8, 2, 60, 64, ("1 row",)),
    options=" --quick",
)


@dataclass(frozen=True)
class Context:
    """What an entry is given. `data` is the folder of real data sets, None where there is none;
    `out` is for results and for what is kept between runs; `say` shows a line of progress."""

    scale: Scale
    threads: int
    data: Path | None
    out: Path
    say: Callable[[str], None]


@dataclass(frozen=True)
class Table:
    """Numbers for a person. The first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """How one contestant compares with another, from rounds in which both took their turns.

    Speeds are ours / theirs, times and memory too, and then less is better. `goal` is what it is
    meant to be at least (at most where `less` is true); None where there is no goal.
    """

    what: str
    ours: str
    theirs: str
    spread: Spread
    goal: float | None = None
    less: bool = False

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        found = self.spread.median
        return found <= self.goal if self.less else found >= self.goal


@dataclass(frozen=True)
class Check:
    """Something that must hold for the numbers to mean anything, and what was found."""

    what: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Result:
    """What an entry found. `skipped` says what was left out and why; `data` are the raw numbers."""

    tables: tuple[Table, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    checks: tuple[Check, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def joined(results: Iterable[Result]) -> Result:
    """All of them as one."""
    whole = Result()
    for part in results:
        whole = Result(
            whole.tables + part.tables,
            whole.ratios + part.ratios,
            whole.checks + part.checks,
            whole.skipped + part.skipped,
            whole.notes + part.notes,
            whole.data | part.data,
        )
    return whole


@dataclass(frozen=True)
class Entry:
    """One measurement. `question` is what it answers, in one line."""

    name: str
    title: str
    question: str
    run: Callable[[Context], Result]
