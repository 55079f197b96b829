"""One training session: takes steps from the loop and decides what happens between them.

It logs every step, evaluates every so often, keeps the best model, stops early, on request or when
the time is up, and saves a state from which the run goes on to the same bits.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from mainspring.events import Progress, emit, note
from mainspring.training import checkpointing
from mainspring.training.loop import Step
from mainspring.training.signals import stop_requests

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Plan:
    """When a session evaluates, saves and ends.

    `evaluate_every` and `save_every` are in steps; `seconds` bounds the training time, evaluation
    and saving left out; `patience` is how many evaluations without a better score end the run.
    """

    steps: int
    evaluate_every: int
    save_every: int
    seconds: float | None = None
    patience: int | None = None
    best: str = "loss"
    higher_is_better: bool = False


@dataclass
class Record:
    """What a session remembers from step to step, and what is saved as `state.json`."""

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    loss: float | None = None
    best_score: float | None = None
    best_step: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    worse_in_a_row: int = 0
    ended: str = ""

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Record":
        return cls(**{name: state[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Actions:
    """What a session calls: `evaluate()` gives scores by name, `keep()` saves the best model,
    `save(record)` saves a state to resume from."""

    evaluate: Callable[[], dict[str, float]]
    keep: Callable[[dict[str, float]], None]
    save: Callable[[Record], None]


@contextmanager
def metrics_writer(out: Path, after: int, tensorboard: bool) -> Iterator[Callable[[dict], None]]:
    """Appends rows to `metrics.jsonl`; rows after step `after` (of a run that died) are dropped."""
    file = out / METRICS_FILE
    kept = []
    if file.exists() and after:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the half-written last line of a process that was killed
            if row.get("step", 0) <= after:
                kept.append(line)
    board = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(out / "tensorboard"))

    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line in kept)

        def write(row: dict[str, Any]) -> None:
            _write_line(stream, row)
            if board is not None:
                for name, value in row.items():
                    if name != "step" and isinstance(value, int | float):
                        board.add_scalar(name, value, row["step"])

        try:
            yield write
        finally:
            if board is not None:
                board.close()


def _write_line(stream: TextIO, row: dict[str, Any]) -> None:
    stream.write(json.dumps(row) + "\n")
    stream.flush()


def is_better(plan: Plan, scores: dict[str, float], best: dict[str, float]) -> bool:
    """Whether `scores` beat the best so far; where the score is the same, by the lower loss."""
    if not best:
        return True
    score, before = scores[plan.best], best[plan.best]
    if score == before:
        return scores.get("loss", 0.0) < best.get("loss", 0.0)
    return score > before if plan.higher_is_better else score < before


def run_session(
    steps: Iterator[Step],
    plan: Plan,
    record: Record,
    actions: Actions,
    write: Callable[[dict[str, Any]], None],
) -> Record:
    """Consumes steps until the plan, the clock, the patience or a signal ends the session.

    `record.ended` says which: "steps", "minutes", "patience" or the name of the signal.
    """
    with stop_requests() as stop:
        while record.step < plan.steps and not record.ended:
            step = next(steps)
            record.step = step.number
            record.loss = step.loss
            record.tokens += step.tokens
            record.train_seconds += step.seconds
            write({name: float(f"{value:.7g}") for name, value in _step_row(step).items()})
            _show(step, plan, record)
            if stop:
                record.ended = str(stop.name)
            elif plan.seconds is not None and record.train_seconds >= plan.seconds:
                record.ended = "minutes"
            elif record.step == plan.steps:
                record.ended = "steps"
            over = bool(record.ended)
            if not stop and (over or record.step % plan.evaluate_every == 0):
                _evaluate(plan, record, actions, write)
                if not over and plan.patience and record.worse_in_a_row >= plan.patience:
                    record.ended = "patience"
            if record.ended or record.step % plan.save_every == 0:
                actions.save(record)
    if record.step < plan.steps:
        emit(Progress("training", record.step, record.step, "steps", {"ended": record.ended}))
    return record


def _step_row(step: Step) -> dict[str, float]:
    row = asdict(step)
    row["step"] = row.pop("number")
    return row


def _show(step: Step, plan: Plan, record: Record) -> None:
    rate = record.tokens / max(record.train_seconds, 1e-9)
    details = {
        "loss": f"{step.loss:.3f}",
        "lr": f"{step.learning_rate:.1e}",
        "tokens/s": f"{rate:,.0f}",
    }
    emit(Progress("training", step.number, plan.steps, "steps", details))


def _evaluate(
    plan: Plan, record: Record, actions: Actions, write: Callable[[dict[str, Any]], None]
) -> None:
    scores = actions.evaluate()
    write({"step": record.step, **{f"valid_{name}": value for name, value in scores.items()}})
    score = scores[plan.best]
    better = is_better(plan, scores, record.best_scores)
    shown = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
    note(f"step {record.step}: {shown}{'  (best so far)' if better else ''}")
    if better:
        record.best_score, record.best_step = score, record.step
        record.best_scores, record.worse_in_a_row = scores, 0
        actions.keep(scores)
    else:
        record.worse_in_a_row += 1


def latest_state(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole state of a run's folder, or None."""
    states = checkpointing.saved_states(out)
    return (states[-1], checkpointing.read_state(states[-1])) if states else None
