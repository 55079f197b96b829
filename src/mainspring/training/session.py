"""One training session: takes steps from the loop and decides what happens between them.

It logs every step, evaluates every so often, keeps the best model, stops early, on request or when
the time is up, and saves a state from which the run goes on to the same bits.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mainspring.errors import Diverged
from mainspring.events import Progress, emit, note
from mainspring.training import checkpointing
from mainspring.training.loop import Step
from mainspring.training.signals import Interrupted, StopRequest, stop_requests
from mainspring.weights.files import write_text

METRICS_FILE, BOARD_FOLDER = "metrics.jsonl", "tensorboard"
EVALUATIONS = 8  # in a run, where the user says nothing
FORESEEN = 3  # how many measured steps the pace that was expected counts for


@dataclass(frozen=True)
class Plan:
    """When a session evaluates, saves and ends.

    `steps` and `seconds` bound the run, either or both; `seconds` are of training, evaluation and
    saving left out, and `pace` is what a step is expected to take at first. `evaluate_every` is in
    steps, None where `EVALUATIONS` are spread over the `seconds`; a state is saved after each
    evaluation, and when `save_seconds` have passed without one. `patience` is how many evaluations
    without a better score end the run.
    """

    steps: int | None
    evaluate_every: int | None
    save_seconds: float = 600.0
    seconds: float | None = None
    pace: float = 1.0
    patience: int | None = None
    best: str = "loss"
    higher_is_better: bool = False


@dataclass
class Record:
    """What a session remembers from step to step, and what is saved as `state.json`.

    `evaluated` is the last step whose weights were evaluated, `evaluated_seconds` when that was in
    seconds of training.
    """

    step: int = 0
    evaluated: int = 0
    evaluated_seconds: float = 0.0
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
def metrics_writer(
    out: Path, record: Record, tensorboard: bool
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Appends rows to `metrics.jsonl`; rows that a run which died wrote after `record` go."""
    file, after = out / METRICS_FILE, record.step
    write_text("".join(line + "\n" for line in _lines_until(file, record)), file)
    board = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(out / BOARD_FOLDER), purge_step=after + 1 if after else None)

    with file.open("a", encoding="utf-8") as stream:

        def write(row: dict[str, Any]) -> None:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if board is not None:
                for name, value in row.items():
                    if name != "step":
                        board.add_scalar(name, value, row["step"])

        try:
            yield write
        finally:
            if board is not None:
                board.close()


def _lines_until(file: Path, record: Record) -> Iterator[str]:
    """The lines of a metrics file that belong to `record`, without the half-written last one of a
    process that was killed."""
    if not record.step or not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if row["step"] <= (record.step if "loss" in row else record.evaluated):
                yield line


def losses_before(out: Path, record: Record) -> list[float]:
    """The training losses of the steps up to `record`, as far as `metrics.jsonl` has them."""
    rows = (json.loads(line) for line in _lines_until(out / METRICS_FILE, record))
    return [row["loss"] for row in rows if "loss" in row]


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

    `record.ended` says which: "steps", "minutes", "patience" or the name of the signal. What is due
    after a step follows from the record alone, so that a resumed session does what the one before
    it left undone.
    """
    saved, saved_at = (record.step, record.evaluated), time.monotonic()
    with stop_requests() as stop:
        while True:
            if not stop and _evaluation_is_due(plan, record):
                with suppress(Interrupted):
                    _evaluate(plan, record, actions, write, stop)
            record.ended = _ended(plan, record) or stop.name or ""
            now, at = (record.step, record.evaluated), time.monotonic()
            late = at - saved_at >= plan.save_seconds
            if saved != now and (record.ended or record.evaluated == record.step or late):
                actions.save(record)
                saved, saved_at = now, at
            if record.ended:
                break
            step = next(steps)
            record.step = step.number
            record.loss = step.loss
            record.tokens += step.tokens
            record.train_seconds += step.seconds
            write(_step_row(step))
            _show(step, plan, record)
    if record.step < expected_steps(plan, record):
        by_clock = plan.steps is None and record.ended == "minutes"  # then these are all there were
        total = record.step if by_clock else plan.steps or expected_steps(plan, record)
        ended = {"ended": record.ended}
        emit(Progress("training", record.step, total, "steps", ended, stopped=True))
    return record


def expected_steps(plan: Plan, record: Record) -> int:
    """How many steps the run will have come to in the end, at the pace it had so far."""
    bounds = [] if plan.steps is None else [plan.steps]
    if plan.seconds is not None:
        spent = FORESEEN * plan.pace + record.train_seconds
        left = plan.seconds - record.train_seconds
        bounds.append(record.step + max(1, round(left / spent * (FORESEEN + record.step))))
    return min(bounds)


def _over(plan: Plan, record: Record) -> str:
    """Why there are no more steps to take, or ""."""
    if plan.steps is not None and record.step >= plan.steps:
        return "steps"
    if plan.seconds is not None and record.train_seconds >= plan.seconds:
        return "minutes"
    return ""


def _evaluation_is_due(plan: Plan, record: Record) -> bool:
    if plan.evaluate_every is not None:
        due = record.step % plan.evaluate_every == 0
    else:
        assert plan.seconds is not None
        every = plan.seconds / EVALUATIONS
        due = record.train_seconds // every > record.evaluated_seconds // every
    return record.step > record.evaluated and (due or bool(_over(plan, record)))


def _ended(plan: Plan, record: Record) -> str:
    """Why the run is over, its last weights evaluated, or ""."""
    if record.evaluated < record.step:
        return ""
    impatient = bool(plan.patience) and record.worse_in_a_row >= (plan.patience or 0)
    return _over(plan, record) or ("patience" if impatient else "")


def _step_row(step: Step) -> dict[str, float]:
    return {
        "step": step.number,
        "loss": _rounded(step.loss),
        "learning_rate": _rounded(step.learning_rate),
        "gradient_norm": _rounded(step.gradient_norm),
        "tokens": step.tokens,
        "target_tokens": step.target_tokens,
        "seconds": _rounded(step.seconds),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _show(step: Step, plan: Plan, record: Record) -> None:
    rate = record.tokens / max(record.train_seconds, 1e-9)
    details = {
        "loss": f"{step.loss:.3f}",
        "lr": f"{step.learning_rate:.1e}",
        "tokens/s": f"{rate:,.0f}",
    }
    emit(Progress("training", step.number, expected_steps(plan, record), "steps", details))


def _evaluate(
    plan: Plan,
    record: Record,
    actions: Actions,
    write: Callable[[dict[str, Any]], None],
    stop: StopRequest,
) -> None:
    """Scores the weights and keeps them if they are the best. A stop request during the scoring
    raises `Interrupted`: it is done again when the run goes on."""
    with stop.interrupting():
        scores = actions.evaluate()
    broken = [name for name, value in scores.items() if not math.isfinite(value)]
    if broken:
        raise Diverged(
            f"step {record.step}: the validation {broken[0]} is not a number, so the last step "
            "broke the weights; try a smaller --learning-rate or --precision float32"
        )
    write({"step": record.step, **{f"valid_{n}": _rounded(v) for n, v in scores.items()}})
    record.evaluated, record.evaluated_seconds = record.step, record.train_seconds
    better = is_better(plan, scores, record.best_scores)
    shown = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
    note(f"step {record.step}: {shown}{'  (best so far)' if better else ''}")
    if better:
        record.best_score, record.best_step = scores[plan.best], record.step
        record.best_scores, record.worse_in_a_row = scores, 0
        actions.keep(scores)
    elif not (plan.higher_is_better and record.best_score == 0):
        # At 0 nothing has been learnt yet that could get worse: patience begins with a score.
        record.worse_in_a_row += 1


def latest_state(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole state of a run's folder, or None."""
    states = checkpointing.saved_states(out)
    return (states[-1], checkpointing.read_state(states[-1])) if states else None
