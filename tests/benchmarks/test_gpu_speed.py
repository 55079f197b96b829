"""The GPU entry: skips where there is no card; its contestants and parts run on a CPU too."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.__main__ import entry, main
from benchmarks.arithmetic import Product
from benchmarks.card import Peak
from benchmarks.entry import QUICK, Check, Context, Result, joined
from benchmarks.generation_contestants import GenerationSetup, Job, Made
from benchmarks.products import DecodingProducts, Read, TrainingProducts
from benchmarks.report import document, load, record, save
from benchmarks.training_contestants import Save, Steps, Trained, TrainingSetup
from benchmarks.training_speed import BATCHES, DEFAULTS
from benchmarks.training_speed import OURS as LEARNER
from benchmarks.turns import ContestantFailed

import nano
from benchmarks import (
    generation_contestants,
    gpu_generation,
    gpu_speed,
    gpu_training,
    material,
    products,
    training_contestants,
)
from mainspring import registry
from mainspring.checkpoints.bundle import new_bundle


class Asked:
    """Turns in this process: what is requested, and what was answered."""

    def __init__(self, *requests: Any) -> None:
        self.requests = [*requests, None]
        self.answers: list[Any] = []

    def take(self) -> Any:
        return self.requests.pop(0)

    def answer(self, reply: Any) -> None:
        self.answers.append(reply)

    def __iter__(self) -> Iterator[Any]:
        while (request := self.take()) is not None:
            yield request


def context(out: Path) -> Context:
    return Context(QUICK, 1, None, out, lambda line: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gpu") / "model"
    with nano.size() as size:
        new_bundle(size, nano.tokenizer(), 0).save(made)
    return made


# -- the entry -------------------------------------------------------------------------------------


def test_without_a_card_it_skips_and_an_earlier_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = gpu_speed.run(context(tmp_path))
    assert found.skipped[0].startswith("no CUDA device: ") and not found.tables
    monkeypatch.setattr("benchmarks.__main__.settle", lambda threads: None)
    words = ["--only", "gpu_speed", "--quick", "--out", str(tmp_path)]
    assert main(words) == 0
    assert load(tmp_path / "gpu_speed.json").result == found
    made = record(entry("gpu_speed"), context(tmp_path), 1.0, Result(notes=("a card",)), None)
    save(made, tmp_path)
    assert main(words) == 0
    assert load(tmp_path / "gpu_speed.json") == made


def test_a_part_that_fails_leaves_the_others() -> None:
    def breaks() -> Result:
        raise ContestantFailed("somebody: Traceback\nOutOfMemoryError: too much")

    failed = gpu_speed._tried("training", breaks)
    whole = joined([Result(notes=("one",), data={"a": 1}), failed, Result(data={"b": 2})])
    assert whole.checks == (Check("training runs to its end", "OutOfMemoryError: too much", False),)
    assert (whole.notes, whole.data) == (("one",), {"a": 1, "b": 2})


def test_a_record_of_another_machine_says_so(tmp_path: Path) -> None:
    here = record(entry("machine"), context(tmp_path), 1.0, Result(), None)
    there = replace(
        record(entry("gpu_speed"), context(tmp_path), 1.0, Result(), None),
        machine=here.machine | {"cpu": "some other", "gpu": "a large card"},
        versions=here.versions | {"torch": "9.9"},
    )
    file = save(there, tmp_path)
    assert json.loads(file.read_text())["machine"]["gpu"] == "a large card"
    page = document([here, load(file)], "").split("## ")
    assert "another machine" not in page[1]
    assert "Measured on another machine: cpu some other; " in page[2]
    assert "gpu a large card" in page[2] and "torch 9.9" in page[2]


# -- contestants, on the CPU -----------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mainspring", "plain_loop", "trainer"])
def test_learners_take_a_device(name: str, folder: Path, tmp_path: Path) -> None:
    if name == "trainer":
        pytest.importorskip("accelerate")
    play = getattr(training_contestants, name)
    pairs = [(row["article"], row["summary"]) for row in nano.pairs(24)]
    rows = material.encode(pairs, nano.tokenizer(), 64, 16)
    setup = TrainingSetup(folder, rows, "float32", 512, device="cpu")
    asked = Asked(Steps(2), Peak(), Steps(1), *((Save(tmp_path),) if name != "trainer" else ()))
    play(setup, asked)
    _, first, peak, second, *_ = asked.answers
    assert isinstance(first, Trained) and len(first.losses) == 2 and len(second.losses) == 1
    assert peak > 1_000_000 and first.seconds > 0


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_writers_take_a_device(folder: Path) -> None:
    job = Job(((5, 6, 7, 1), (8, 9, 1)), 6, forced=True, static=False)
    setup = GenerationSetup(folder, "float32", 1, device="cpu")
    rows = []
    for play in (generation_contestants.mainspring, generation_contestants.transformers):
        asked = Asked(job, Peak(), replace(job, beams=2))
        play(setup, asked)
        _, greedy, peak, beams = asked.answers
        assert greedy.tokens == beams.tokens == 12 and peak > 1_000_000
        rows.append(greedy.rows)
    assert rows[0] == rows[1] and greedy.how.endswith("dynamic cache")


@pytest.mark.filterwarnings("ignore")
def test_ctranslate2_writes_with_as_many_threads_as_serve_it(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    setup = GenerationSetup(folder, "float32", 2, tmp_path / "converted", device="cpu")
    job = Job(((5, 6, 7, 1), (8, 9, 1)), 6, forced=True, static=False)
    ours, theirs = Asked(job), Asked(job, Peak(), job)
    generation_contestants.mainspring(setup, ours)
    generation_contestants.ctranslate2(setup, theirs)
    assert theirs.answers[0].startswith("float32, ")
    for made in (theirs.answers[1], theirs.answers[3]):
        assert made.rows == ours.answers[1].rows and made.how in ("1 thread", "2 threads")


def test_products_take_a_device() -> None:
    asked = Asked(
        TrainingProducts((Product(8, 4, 6, 2),), "float32"),
        DecodingProducts(((4, 6),), 2, "bfloat16"),
        Read(4096),
    )
    products.play("cpu", asked)
    _, rates, seconds, bytes_per_second = asked.answers
    assert min(rates.forward, rates.together, seconds, bytes_per_second) > 0


# -- results ---------------------------------------------------------------------------------------


def test_training_rates_are_told_beside_the_products() -> None:
    spec = registry.find("families", "t5").spec({**nano.SIZE, "vocab_size": 64}, ())
    rounds = gpu_training.Rounds(large=[1.0, 4e9, 4e9], own=[1.0, 2e9, 2e9])
    for name, seconds in zip((LEARNER, DEFAULTS, BATCHES), (1.0, 4.0, 2.0), strict=True):
        losses = iter((3.0, 2.0, 1.0))
        rounds.done[name] = [Trained(seconds, [next(losses)], [(40, 8)]) for _ in range(3)]
        rounds.peaks[name] = [9 * 10**9, 10**9, 2 * 10**9]
        rounds.how[name] = "how"
    found = gpu_training.result("t5-nano", spec, rounds)
    assert [r.spread.median for r in found.ratios] == [4.0, 2.0, 1.0]
    assert all(r.goal is None for r in found.ratios) and all(c.holds for c in found.checks)
    flops = found.data["training t5-nano"]["flops"][LEARNER][0]
    ours = found.tables[0].rows[0]
    assert ours[5:8] == (f"{flops / 4e9:.1%}", f"{flops / 2e9:.1%}", "2.00")


def test_writing_is_compared_and_checked() -> None:
    ours, theirs = "Mainspring bfloat16", "transformers bfloat16"
    jobs = {"32 rows": Job(((1,), (2,)), 4, forced=True)}
    right, wrong = [[4, 5, 6, 7], [4, 5, 6, 8]], [[4, 5, 6, 7], [9, 5, 6, 8]]

    def rounds(narrow: list[list[int]], wide: list[list[int]]) -> gpu_generation.Rounds:
        made = {name: Made(s, narrow, 8) for name, s in ((ours, 1.0), (theirs, 2.0))}
        return gpu_generation.Rounds(
            {("32 rows", name): [one] * 3 for name, one in made.items()},
            {("32 rows", name): [10**9] * 3 for name in made},
            {"Mainspring float32": right, "transformers float32": wide},
            dict.fromkeys(made, "how"),
        )

    good = gpu_generation.result("T5", jobs, rounds(right, right), "about")
    assert [r.spread.median for r in good.ratios] == [2.0, 1.0]
    assert all(check.holds for check in good.checks)
    bad = gpu_generation.result("T5", jobs, rounds(wrong, wrong), "about")
    assert [check.holds for check in bad.checks] == [False, False, True]
    assert "Mainspring 50.0%, whole rows 50.0%" in bad.checks[1].found
