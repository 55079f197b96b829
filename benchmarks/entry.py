"""The records of the benchmark: what an entry is, what it is given and what it gives back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread


@dataclass(frozen=True)
class Scale:
    """How much work a run does. Steps are optimizer steps, tokens those of a step; `gpu_static`
    names the jobs for which transformers may try its static cache on a card."""

    name: str
    curve_size: str
    curve_steps: int
    curve_tokens: int
    rouge_rows: int
    teaching_steps: int
    teaching_tokens: int
    speed_size: str
    speed_tokens: int
    speed_steps: int
    speed_rounds: int
    lora_tokens: int
    lora_steps: int
    lora_rounds: int
    generation_rounds: int
    extra_rounds: int
    new_tokens: int
    chat_tokens: int
    product_rounds: int
    cold_rounds: int
    gpu_sizes: tuple[str, ...]
    gpu_tokens: int
    gpu_steps: int
    gpu_rounds: int
    gpu_teaching_steps: int
    gpu_new_tokens: int
    gpu_static: tuple[str, ...]


FULL = Scale(
    name="full",
    curve_size="t5-tiny",
    curve_steps=480,
    curve_tokens=1024,
    rouge_rows=200,
    teaching_steps=200,
    teaching_tokens=4096,
    speed_size="t5-small",
    speed_tokens=4096,
    speed_steps=2,
    speed_rounds=7,
    lora_tokens=2048,
    lora_steps=2,
    lora_rounds=5,
    generation_rounds=5,
    extra_rounds=3,
    new_tokens=64,
    chat_tokens=96,
    product_rounds=7,
    cold_rounds=5,
    gpu_sizes=("t5-small", "t5-base"),
    gpu_tokens=32_768,
    gpu_steps=20,
    gpu_rounds=3,
    gpu_teaching_steps=200,
    gpu_new_tokens=128,
    gpu_static=("1 row", "32 rows"),
)
QUICK = Scale(
    name="quick",
    curve_size="t5-tiny",
    curve_steps=16,
    curve_tokens=512,
    rouge_rows=24,
    teaching_steps=40,
    teaching_tokens=1024,
    speed_size="t5-small",
    speed_tokens=2048,
    speed_steps=1,
    speed_rounds=3,
    lora_tokens=1024,
    lora_steps=1,
    lora_rounds=2,
    generation_rounds=2,
    extra_rounds=1,
    new_tokens=16,
    chat_tokens=24,
    product_rounds=3,
    cold_rounds=2,
    gpu_sizes=("t5-small",),
    gpu_tokens=32_768,
    gpu_steps=8,
    gpu_rounds=2,
    gpu_teaching_steps=60,
    gpu_new_tokens=64,
    gpu_static=("1 row",),
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
