"""Whole runs: the same bits after every kind of stop."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mainspring
import nano
from mainspring import events
from mainspring.errors import BadData, BadOption, Missing
from mainspring.training import checkpointing, fitting
from mainspring.verbs.fit import FitResult

STEPS = 8

# Dropout is on, steps are split, and both epochs and evaluations end between the stops.
OPTIONS: dict[str, Any] = {
    "from_scratch": nano.NAME,
    "steps": STEPS,
    "batch_tokens": 700,
    "accumulate": 2,
    "learning_rate": 1e-2,
    "max_source": 32,
    "max_target": 8,
    "vocabulary": 300,
    "evaluate_every": 3,
    "metric_rows": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "adafactor": {
        "precision": "float32",
        "optimizer": "adafactor",
        "tokenizer": "byte-bpe",
        "vocabulary": 380,
    },
    "packed": {"precision": "bfloat16", "pack": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.write_jsonl(nano.pairs(30), tmp_path_factory.mktemp("data") / "pairs.jsonl")


def run(data: Path, out: Path, **options: Any) -> FitResult:
    return mainspring.fit("summarize", data, out=out, **{**OPTIONS, **options})


def kept(out: Path) -> dict[str, Any]:
    """All that two equal runs have in common: tensors to the bit, what was logged, the model."""
    [state] = checkpointing.saved_states(out)
    record = checkpointing.read_state(state)
    del record["train_seconds"], record["evaluated_seconds"]
    rows = nano.read_jsonl(out / "metrics.jsonl")
    files = {file.name: file.read_bytes() for file in state.glob("*.safetensors")}
    files |= {name: (out / name).read_bytes() for name in ("model.safetensors", "tokenizer.json")}
    return {
        **files,
        "record": record,
        "metrics": [{k: v for k, v in row.items() if k != "seconds"} for row in rows],
    }


@pytest.fixture(scope="module")
def straight(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """straight(kind): what a run without a stop gives."""
    made: dict[str, dict[str, Any]] = {}

    def of(kind: str) -> dict[str, Any]:
        if kind not in made:
            out = tmp_path_factory.mktemp(kind) / "run"
            result = run(data, out, **KINDS[kind])
            assert (result.steps, result.ended) == (STEPS, "steps")
            made[kind] = kept(out)
        return made[kind]

    return of


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


@dataclass
class StopAt:
    """Listens to a run and asks it to stop after one step."""

    step: int

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Progress("training", done, total, stopped=False) if (
                done == self.step != total
            ):
                os.kill(os.getpid(), signal.SIGTERM)


# -- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "float32",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("bfloat16", "adafactor", "packed")
        ),
    ],
)
def test_two_stops_change_no_bit(
    straight: Callable[[str], dict[str, Any]], data: Path, tmp_path: Path, nano_size: str, kind: str
) -> None:
    out = tmp_path / "run"
    for number, step in enumerate((1, 6)):
        with events.listening(StopAt(step)):
            stopped = run(data, out, **KINDS[kind], resume=number > 0)
        assert (stopped.steps, stopped.ended, stopped.exit_code) == (step, "SIGTERM", 143)
        assert stopped.resume == f"mainspring fit summarize {data} --out {out} --resume"
    result = mainspring.fit("summarize", data, out=out, resume=True)
    assert (result.steps, result.ended, result.exit_code) == (STEPS, "steps", 0)
    assert_same(kept(out), straight(kind))


def fit_words(data: Path, out: Path, kind: str, *more: str) -> list[str]:
    words = ["fit", "summarize", str(data), "--out", str(out), *more]
    for name, value in {**OPTIONS, **KINDS[kind]}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def rows_logged(out: Path) -> int:
    file = out / "metrics.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def slow_steps() -> None:
    """In the command's process: every step takes a moment, so that a signal meets one."""
    real = fitting.train

    def train(*args: Any, **options: Any) -> Iterator[Any]:
        for step in real(*args, **options):
            time.sleep(0.1)
            yield step

    fitting.train = train  # type: ignore[assignment]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    straight: Callable[[str], dict[str, Any]],
    data: Path,
    tmp_path: Path,
    nano_size: str,
    number: signal.Signals,
) -> None:
    out = tmp_path / "run"
    command = nano.Command(tmp_path, *fit_words(data, out, "float32", "--json"), before=slow_steps)
    command.until(lambda: rows_logged(out) >= 2)
    command.signal(number)
    assert command.wait() == 128 + number
    assert f"{number.name}: finishing this step, then saving" in command.err
    printed = json.loads(command.out.splitlines()[-1])
    assert printed["ended"] == number.name and 0 < printed["steps"] < STEPS
    assert printed["resume"] == f"mainspring fit summarize {data} --out {out} --resume"
    mainspring.fit("summarize", data, out=out, resume=True)
    assert_same(kept(out), straight("float32"))


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_a_run_that_goes_on(
    straight: Callable[[str], dict[str, Any]], data: Path, tmp_path: Path, nano_size: str
) -> None:
    """Killed again and again, each time a moment after it began to log (or much earlier, which
    leaves nothing to resume), the run still ends with the same bits."""
    out, draw = tmp_path / "run", random.Random(5)
    kills = 0
    while kills < 4:
        begun = (out / "run.json").exists()
        words = [f"summarize {data} --out {out} --resume"] if begun else []
        words = ["fit", *words[0].split()] if begun else fit_words(data, out, "float32")
        before = rows_logged(out)
        command = nano.Command(tmp_path, *words, before=slow_steps)
        if kills:
            command.until(lambda before=before: rows_logged(out) not in (0, before))
        else:
            command.until(lambda: (out / "tokenizer.json").exists())
        time.sleep(draw.random() * 0.4)
        command.process.kill()
        ended = command.wait()
        for state in checkpointing.saved_states(out):
            assert checkpointing.read_state(state)["step"] == int(state.name.split("-")[1])
        if ended == 0:  # on a quick machine the last steps are over before the kill
            break
        assert ended == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    mainspring.fit("summarize", data, out=out, resume=True)
    assert_same(kept(out), straight("float32"))


def stand_still_in_the_second_save() -> None:
    """In the command's process: the second state gets its tensors and never its record."""
    real = checkpointing.write_text

    def write(text: str, file: Path) -> None:
        if file.parent.name == ".step-00000006.tmp":
            time.sleep(600)
        real(text, file)

    checkpointing.write_text = write  # type: ignore[assignment]


@pytest.mark.slow
def test_kill_9_in_the_middle_of_saving(
    straight: Callable[[str], dict[str, Any]], data: Path, tmp_path: Path, nano_size: str
) -> None:
    out = tmp_path / "run"
    half = out / "state" / ".step-00000006.tmp" / "optimizer.safetensors"
    words = fit_words(data, out, "float32")
    command = nano.Command(tmp_path, *words, before=stand_still_in_the_second_save)
    command.until(half.exists)
    command.signal(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert [state.name for state in checkpointing.saved_states(out)] == ["step-00000003"]
    result = mainspring.fit("summarize", data, out=out, resume=True)
    assert result.ended == "steps"
    assert not half.exists()
    assert_same(kept(out), straight("float32"))


def test_a_run_stopped_before_its_first_step_begins_anew(
    straight: Callable[[str], dict[str, Any]],
    data: Path,
    tmp_path: Path,
    nano_size: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "run_session", _interrupted)
        with pytest.raises(KeyboardInterrupt) as stopped:
            run(data, out, **KINDS["float32"])
    words = f"go on with: mainspring fit summarize {data} --out {out} --resume"
    assert stopped.value.__notes__ == [words]
    mainspring.fit("summarize", data, out=out, resume=True)
    assert_same(kept(out), straight("float32"))


def test_a_run_stopped_before_its_pre_flight_begins_anew_by_the_same_command(
    data: Path, tmp_path: Path, nano_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "train_tokenizer", _interrupted)
        with pytest.raises(KeyboardInterrupt) as stopped:
            run(data, out, **KINDS["float32"])
    assert "__notes__" not in vars(stopped.value)
    assert run(data, out, **KINDS["float32"]).ended == "steps"


def _interrupted(*args: object) -> None:
    raise KeyboardInterrupt


# -- going on, and not ----------------------------------------------------------------------------


@pytest.fixture
def stopped(data: Path, tmp_path: Path, nano_size: str) -> Path:
    """The folder of a run that was stopped after three steps."""
    out = tmp_path / "stopped"
    with events.listening(StopAt(3)):
        run(data, out, **KINDS["float32"])
    return out


def test_what_a_resumed_run_keeps_and_what_it_takes_anew(stopped: Path, data: Path) -> None:
    def resume(data: Path = data, **options: Any) -> FitResult:
        return mainspring.fit("summarize", data, out=stopped, resume=True, **options)

    with pytest.raises(BadOption, match=r"--learning-rate 0\.5 differs from the run's own 0\.01"):
        resume(learning_rate=0.5)
    with pytest.raises(BadOption, match="task pretrain differs"):
        mainspring.fit("pretrain", data, out=stopped, resume=True)
    changed = nano.write_jsonl(nano.pairs(31), stopped.parent / "changed.jsonl")
    with pytest.raises(BadData, match=r"changed\.jsonl: the \w+ data is not what this run was"):
        resume(changed)
    with pytest.raises(BadOption, match="already holds a run; go on with it"):
        run(data, stopped)
    [state] = checkpointing.saved_states(stopped)
    assert state.name == "step-00000003"
    moved = stopped.parent / "moved.jsonl"
    moved.write_bytes(data.read_bytes())
    assert resume(moved, learning_rate=1e-2).steps == STEPS
    finished = resume(moved)
    assert (finished.steps, finished.ended) == (STEPS, "steps")
    assert len(nano.read_jsonl(stopped / "metrics.jsonl")) == STEPS + 3


def test_packed_rows_are_told_and_where_there_are_none(
    data: Path, tmp_path: Path, nano_size: str
) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        made = run(data, tmp_path / "packed", pack=True, steps=1, precision="float32")
    [block] = [event for event in seen if isinstance(event, events.Block) and event.title[0] == "P"]
    told = dict(block.lines)
    found = re.fullmatch(r"700 tokens each, .*, (\d+) examples in (\d+) rows", told["batches"])
    assert found is not None and int(found[1]) > 2 * int(found[2])
    assert "--pack" in json.loads((Path(made.out) / "run.json").read_text())["command"]
    options = {"from_scratch": nano_size, "vocabulary": 300, "steps": 1, "pack": True}
    with pytest.raises(BadOption, match="--pack: span corruption, by which this model learns"):
        mainspring.fit("pretrain", data, out=tmp_path / "pretrain", **options)


def test_nothing_to_resume_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"no run\.json, so no run to resume; leave --resume out"):
        mainspring.fit("summarize", data, out=tmp_path / "none", resume=True)


@pytest.mark.slow
def test_minutes_decide_the_number_of_steps(data: Path, tmp_path: Path, nano_size: str) -> None:
    out = tmp_path / "run"
    options = {**KINDS["float32"], "steps": None, "minutes": 0.05, "patience": 0}
    with events.listening(StopAt(1)):
        run(data, out, **options)
    recorded = json.loads((out / "run.json").read_text())
    assert recorded["steps"] is None and recorded["options"]["minutes"] == 0.05
    result = mainspring.fit("summarize", data, out=out, resume=True)
    assert json.loads((out / "run.json").read_text()) == recorded
    assert result.ended == "minutes" and 3 <= result.train_seconds < 4 * 60 * 0.05
    rates = [r["learning_rate"] for r in nano.read_jsonl(out / "metrics.jsonl") if "loss" in r]
    # The rate has fallen when the time is up, however fast the steps were.
    assert len(rates) == result.steps
    assert len(rates) < 6 or rates[-1] < 0.5 * max(rates)


@pytest.mark.slow
def test_pretraining_resumes_to_the_same_bits(tmp_path: Path, nano_size: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(row["article"] for row in nano.pairs(220)), encoding="utf-8")
    options = {name: value for name, value in OPTIONS.items() if name != "metric_rows"}
    outs = tmp_path / "straight", tmp_path / "stopped"
    mainspring.fit("pretrain", text, out=outs[0], **options)
    with events.listening(StopAt(4)):
        mainspring.fit("pretrain", text, out=outs[1], **options)
    mainspring.fit("pretrain", text, out=outs[1], resume=True)
    assert_same(kept(outs[1]), kept(outs[0]))


def test_no_file_of_a_run_is_a_pickle(trained: Path) -> None:
    names = {file.suffix for file in trained.rglob("*") if file.is_file()}
    assert names == {".json", ".jsonl", ".safetensors", ".md"}


def test_without_metric_rows_the_loss_picks_the_checkpoint(
    data: Path, tmp_path: Path, nano_size: str
) -> None:
    result = run(data, tmp_path / "out", metric_rows=0)
    rows = nano.read_jsonl(tmp_path / "out" / "metrics.jsonl")
    losses = {row["step"]: row["valid_loss"] for row in rows if "valid_loss" in row}
    assert set(result.scores) == {"loss"} and len(losses) > 1
    assert result.best == result.scores["loss"] == pytest.approx(min(losses.values()), abs=1e-5)
    assert losses[result.best_step] == min(losses.values())
