import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nano
from mainspring import events
from mainspring.errors import Diverged
from mainspring.training import session
from mainspring.training.loop import Step
from mainspring.training.session import (
    Actions,
    Plan,
    Record,
    expected_steps,
    is_better,
    latest_state,
    metrics_writer,
    run_session,
)


def steps(first: int = 0, seconds: float = 1.0) -> Iterator[Step]:
    """Steps that cost nothing, from step `first` on."""
    number = first
    while True:
        number += 1
        yield Step(number, 1 / number, 1e-3, 0.5, 100, 30, seconds)


@dataclass
class Diary:
    """What a session did, and the scores it is given in turn."""

    losses: list[float]
    did: list[tuple[Any, ...]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    during: Callable[[int], None] = lambda number: None

    def evaluate(self) -> dict[str, float]:
        number = sum(what == "evaluate" for what, *_ in self.did)
        self.did.append(("evaluate", number))
        self.during(number)
        return {"loss": self.losses[number], "rougeLsum": 100 - self.losses[number]}

    def actions(self) -> Actions:
        return Actions(
            evaluate=self.evaluate,
            keep=lambda scores: self.did.append(("keep", scores["loss"])),
            save=lambda record: self.did.append(("save", record.step, replace(record))),
        )

    def run(self, plan: Plan, record: Record | None = None, seconds: float = 1.0) -> Record:
        record = Record() if record is None else record
        each = steps(record.step, seconds)
        return run_session(each, plan, record, self.actions(), self.rows.append)

    def of(self, kind: str) -> list[Any]:
        return [what[1] for what in self.did if what[0] == kind]


def test_it_evaluates_and_saves_every_so_often_and_at_the_end() -> None:
    diary = Diary([5.0, 4.0, 3.0])
    record = diary.run(Plan(steps=7, evaluate_every=3))
    assert record.ended == "steps" and record.step == 7
    assert [row["step"] for row in diary.rows if "valid_loss" in row] == [3, 6, 7]
    assert diary.of("save") == [3, 6, 7]
    assert (record.tokens, record.train_seconds) == (700, 7.0)
    assert [row["step"] for row in diary.rows if "loss" in row] == list(range(1, 8))


def test_the_best_is_kept_and_remembered() -> None:
    diary = Diary([5.0, 3.0, 4.0, 3.5])
    record = diary.run(Plan(steps=8, evaluate_every=2))
    assert diary.of("keep") == [5.0, 3.0]
    assert (record.best_score, record.best_step) == (3.0, 4)
    assert record.best_scores == {"loss": 3.0, "rougeLsum": 97.0}
    assert record.worse_in_a_row == 2


def test_scores_that_rise_are_better() -> None:
    diary = Diary([5.0, 3.0, 4.0])
    plan = Plan(steps=6, evaluate_every=2, best="rougeLsum", higher_is_better=True)
    assert diary.run(plan).best_score == 97.0


def test_of_equal_scores_the_lower_loss_is_better() -> None:
    plan = Plan(1, 1, best="rougeLsum", higher_is_better=True)
    best = {"rougeLsum": 0.0, "loss": 5.0}
    assert is_better(plan, {"rougeLsum": 0.0, "loss": 4.0}, best)
    assert not is_better(plan, {"rougeLsum": 0.0, "loss": 5.0}, best)
    assert is_better(plan, {"rougeLsum": 0.1, "loss": 9.0}, best)


def test_patience_ends_the_run_and_resuming_does_not_undo_that() -> None:
    diary = Diary([3.0, 4.0, 5.0, 1.0])
    plan = Plan(steps=100, evaluate_every=10, patience=2)
    record = diary.run(plan)
    assert (record.ended, record.step) == ("patience", 30)
    again = Diary([])
    assert again.run(plan, record).ended == "patience"
    assert again.did == []


def test_patience_begins_with_a_score() -> None:
    """A model that has learnt nothing yet has nothing to lose."""
    plan = Plan(8, 1, patience=2, best="rougeLsum", higher_is_better=True)
    assert Diary([100.0] * 8).run(plan).ended == "steps"
    record = Diary([100.0] * 4 + [90.0, 91.0, 92.0, 80.0]).run(plan)
    assert (record.ended, record.step) == ("patience", 7)


def test_no_patience_is_for_ever() -> None:
    diary = Diary([1.0] + [2.0] * 9)
    assert diary.run(Plan(steps=10, evaluate_every=1, patience=0)).ended == "steps"


def test_the_clock_counts_training_alone() -> None:
    diary = Diary([3.0, 2.0])
    record = diary.run(Plan(steps=100, evaluate_every=3, seconds=10.0), seconds=2.5)
    assert (record.ended, record.step) == ("minutes", 4)
    assert diary.of("evaluate") == [0, 1]  # after step 3, and the last weights after step 4


def test_evaluations_are_spread_over_the_minutes() -> None:
    diary = Diary([9.0 - number for number in range(8)])
    record = diary.run(Plan(steps=None, evaluate_every=None, seconds=40.0), seconds=0.5)
    assert (record.ended, record.step) == ("minutes", 80)
    assert [r["step"] for r in diary.rows if "valid_loss" in r] == list(range(10, 81, 10))
    # Fewer steps than evaluations: one after each.
    diary = Diary([9.0 - number for number in range(5)])
    diary.run(Plan(steps=None, evaluate_every=None, seconds=40.0), seconds=9.0)
    assert [r["step"] for r in diary.rows if "valid_loss" in r] == [1, 2, 3, 4, 5]


def test_the_number_of_steps_follows_the_pace() -> None:
    plan = Plan(steps=None, evaluate_every=None, seconds=100.0, pace=4.0)
    assert expected_steps(plan, Record()) == 25
    # Three steps at 4 s were foreseen, 27 took 1 s each: 1.3 s a step for what is left.
    assert expected_steps(plan, Record(step=27, train_seconds=27.0)) == 27 + round(73 / 1.3)
    assert expected_steps(plan, Record(step=99, train_seconds=99.9)) == 100
    both = replace(plan, steps=60)
    assert expected_steps(both, Record(step=27, train_seconds=27.0)) == 60
    assert expected_steps(both, Record()) == 25


def test_a_state_is_saved_when_an_evaluation_is_long_in_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10_000, 250))
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    diary = Diary([3.0])
    diary.run(Plan(steps=8, evaluate_every=8, save_seconds=600))
    assert diary.of("save") == [2, 5, 8]


# -- stopping -------------------------------------------------------------------------------------


def stop_at(step: int, number: int = signal.SIGTERM) -> Callable[[events.Event], None]:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.done == step and not event.over:
            os.kill(os.getpid(), number)

    return listen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_signal_saves_after_the_step_without_evaluating(step: int, number: int) -> None:
    diary = Diary([3.0, 2.0])
    before = signal.getsignal(number)
    with events.listening(stop_at(step, number)):
        record = diary.run(Plan(steps=8, evaluate_every=4))
    assert record.ended == signal.Signals(number).name
    assert record.step == step
    assert diary.of("save")[-1] == step
    assert diary.of("evaluate") == ([0] if step > 4 else [])
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("step", range(1, 8))
def test_a_resumed_session_does_what_a_straight_one_does(step: int) -> None:
    losses, plan = [4.0, 3.0, 5.0, 2.0], Plan(steps=8, evaluate_every=2)
    straight = Diary(losses)
    whole = straight.run(plan)
    first = Diary(losses)
    with events.listening(stop_at(step)):
        record = first.run(plan)
    # What a new process knows is what was saved.
    saved = json.loads(json.dumps(asdict(first.did[-1][2])))
    second = Diary(losses[len(first.of("evaluate")) :])
    end = second.run(plan, Record.restored(saved))
    assert record.step == step
    assert asdict(end) == asdict(whole)
    assert first.of("keep") + second.of("keep") == straight.of("keep")
    assert first.rows + second.rows == straight.rows


def test_a_signal_cuts_an_evaluation_short_and_it_is_done_again() -> None:
    def interrupt(number: int) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    plan = Plan(steps=6, evaluate_every=2)
    diary = Diary([4.0, math.nan], during=interrupt)
    record = diary.run(plan)
    assert (record.ended, record.step, record.evaluated) == ("SIGTERM", 4, 2)
    assert diary.did[-1][:2] == ("save", 4)
    again = Diary([3.0, 2.0])
    end = again.run(plan, Record.restored(asdict(record)))
    assert (end.ended, end.best_step) == ("steps", 6)
    assert [row["step"] for row in again.rows if "valid_loss" in row] == [4, 6]
    assert again.of("save") == [4, 6]


def test_a_validation_loss_that_is_not_a_number_ends_the_run() -> None:
    diary = Diary([4.0, math.nan])
    with pytest.raises(Diverged, match="step 4: the validation loss is not a number"):
        diary.run(Plan(steps=8, evaluate_every=2))
    assert diary.of("keep") == [4.0]
    assert diary.of("save") == [2]


# -- what is written ------------------------------------------------------------------------------


def test_metrics_go_on_without_rows_twice(tmp_path: Path) -> None:
    plan = Plan(steps=6, evaluate_every=2)
    file = tmp_path / "metrics.jsonl"

    def run(diary: Diary, record: Record) -> Record:
        with metrics_writer(tmp_path, record, False) as write:
            each = steps(record.step)
            return run_session(each, plan, record, diary.actions(), write)

    run(Diary([3.0, 2.0, 1.0]), Record())
    straight = file.read_text()
    # A process that dies leaves rows after its last state, and half a row.
    state = Record(step=2, evaluated=2, best_score=3.0, best_scores={"loss": 3.0}, best_step=2)
    file.write_text(straight[:-20])
    run(Diary([2.0, 1.0]), replace(state))
    assert file.read_text() == straight
    # One that dies between an evaluation and the save that follows it does that one again.
    run(Diary([3.0, 2.0, 1.0]), replace(state, evaluated=0, best_scores={}))
    assert file.read_text() == straight
    run(Diary([3.0, 2.0, 1.0]), Record())
    assert file.read_text() == straight
    rows = nano.read_jsonl(file)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "valid_loss" in row] == [2, 4, 6]
    assert rows[0] == {
        "step": 1,
        "loss": 1.0,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "tokens": 100,
        "target_tokens": 30,
        "seconds": 1.0,
    }


def test_tensorboard_files_hold_every_number_once(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rows = [{"step": n, "loss": 1 / n, "seconds": 0.5} for n in (1, 2, 3, 4)]
    with metrics_writer(tmp_path, Record(), True) as write:
        for row in rows[:3]:
            write(row)
    with metrics_writer(tmp_path, Record(step=2), True) as write:
        for row in rows[2:]:
            write(row)
    board = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == ["loss", "seconds"]
    assert [(e.step, round(e.value, 4)) for e in board.Scalars("loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.3333),
        (4, 0.25),
    ]


def test_progress_shows_loss_rate_and_tokens() -> None:
    seen: list[events.Progress] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            seen.append(event)

    with events.listening(listen):
        Diary([1.0]).run(Plan(steps=2, evaluate_every=2), seconds=0.5)
    assert [(e.task, e.done, e.total, e.unit) for e in seen] == [
        ("training", 1, 2, "steps"),
        ("training", 2, 2, "steps"),
    ]
    assert seen[1].details == {"loss": "0.500", "lr": "1.0e-03", "tokens/s": "200"}


@pytest.mark.parametrize(
    ("plan", "ended", "total"),
    [
        (Plan(steps=50, evaluate_every=50, seconds=2.0), "minutes", 50),
        (Plan(steps=None, evaluate_every=50, seconds=2.0), "minutes", 2),
        (Plan(steps=50, evaluate_every=1, patience=1), "patience", 50),
    ],
)
def test_a_bar_that_ends_early_is_closed_and_keeps_its_total(
    plan: Plan, ended: str, total: int
) -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append):
        Diary([1.0, 2.0]).run(plan)
    last = [event for event in seen if isinstance(event, events.Progress)][-1]
    assert (last.done, last.total, last.over) == (2, total, True)
    assert last.details == {"ended": ended}


def test_a_run_without_a_state_has_none(tmp_path: Path) -> None:
    assert latest_state(tmp_path) is None
