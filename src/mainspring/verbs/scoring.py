"""What `evaluate` does: predict, score row by row, and say how sure the means are.

Predictions go to a file as they are made; in memory stay four numbers a row.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, tee
from pathlib import Path
from typing import Any

import numpy as np

from mainspring import events, registry
from mainspring.data import schema
from mainspring.data.readers import Source, columns, read_rows, sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadOption, Mismatch
from mainspring.formulations.prediction import OnLong, Prediction, predict
from mainspring.metrics import Metric
from mainspring.metrics.intervals import compare, interval
from mainspring.tasks import Task
from mainspring.verbs.evaluation import Evaluation
from mainspring.verbs.opening import Opened, open_for
from mainspring.verbs.output import row_writer

CHOOSE_TOKENS_FROM = 200  # rows


@dataclass
class Tally:
    """What is kept of the predictions of one model."""

    precision: str
    megabytes: float
    rows: list[dict[str, float]] = field(default_factory=list)
    at_limit: int = 0
    cut: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, prediction: Prediction, scores: dict[str, float]) -> None:
        self.rows.append(scores)
        self.at_limit += prediction.stop == "length"
        self.cut += prediction.source_tokens_unread > 0 or prediction.windows > 1
        self.tokens += prediction.tokens

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]

    @property
    def speed(self) -> float:
        """Generated tokens a second, reading and scoring included."""
        return self.tokens / max(self.seconds, 1e-9)

    def means(self) -> dict[str, float]:
        return means(self.rows)


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def score(
    task_name: str,
    data: Path,
    *,
    contestants: list[tuple[str, str]],
    out: Path | None,
    named: dict[str, str],
    limit: int | None,
    max_source: int | None,
    generation: dict[str, Any],
    on_long: OnLong,
    device: str,
    seed: int,
    strict: bool,
) -> Evaluation:
    """The `Evaluation` of the first contestant (model, precision), against the second if any."""
    task: Task = registry.find("tasks", task_name)
    if task.metric is None:
        raise Mismatch(f"`{task.name}` has no metric on generated text; `fit` reports its loss")
    if limit is not None and limit < 1:
        raise BadOption("--limit must be at least 1")
    source = _test_source(data)
    tokens = _word_kind(task, task.metric, source, named)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    skipped = SkipLog(None if out is None else out / "skipped.jsonl", strict=strict)
    baseline: dict[str, list[dict[str, float]]] = {name: [] for name in task.metric.baselines}
    tallies = []
    for number, (name, precision) in enumerate(contestants):
        opened = open_for(task, name, max_source, generation, on_long, precision, device)
        with skipped if number == 0 else SkipLog() as log:
            rows = islice(_examples(task, source, named, log), limit)
            file = None if out is None or number else out / "predictions.jsonl"
            bases = baseline if number == 0 else {}
            tallies.append(_scored(task, task.metric, opened, rows, tokens, file, bases))
    first = tallies[0]
    names = list(first.rows[0])
    against: dict[str, Any] = {}
    if len(tallies) > 1:
        other = tallies[1]
        tests = {n: compare(first.column(n), other.column(n), seed=seed) for n in names}
        against = {
            "model": contestants[1][0],
            "precision": other.precision,
            "megabytes": round(other.megabytes, 1),
            "tokens_per_second": round(other.speed, 1),
            "scores": other.means(),
            "difference": {n: round(test.mean, 4) for n, test in tests.items()},
            "interval": {n: (round(t.low, 4), round(t.high, 4)) for n, t in tests.items()},
            "p": {n: round(test.p, 5) for n, test in tests.items()},
        }
    spread = {n: interval(first.column(n), seed=seed) for n in names}
    return Evaluation(
        task=task.name,
        model=contestants[0][0],
        rows=len(first.rows),
        skipped=skipped.total,
        scores=first.means(),
        interval={n: (round(low, 4), round(high, 4)) for n, (low, high) in spread.items()},
        baseline={name: means(rows) for name, rows in baseline.items()},
        signature=task.metric.signature(tokens),
        hit_limit=first.at_limit / len(first.rows),
        sources_cut=first.cut / len(first.rows),
        tokens_per_second=round(first.speed, 1),
        precision=first.precision,
        megabytes=round(first.megabytes, 1),
        predictions=None if out is None else str(out / "predictions.jsonl"),
        against=against,
    )


def _test_source(data: Path) -> Source:
    """The test split of a folder, or else its validation split, or all there is."""
    found = {source.split: source for source in sources(data)}
    for split in ("test", "validation", None, "train"):
        if split in found:
            if len(found) > 1:
                events.note(f"scoring the {split} split of {data}")
            return found[split]
    raise AssertionError("sources() gives at least one source")


def _examples(
    task: Task, source: Source, named: dict[str, str], skipped: SkipLog
) -> Iterator[schema.Example]:
    place = next((str(file) for file in source.files if file is not None), None)
    matched = schema.match_columns(task.fields, columns(source), named, file=place)
    return schema.examples(read_rows(source, skipped), task.fields, matched, skipped)


def _word_kind(task: Task, metric: Metric, source: Source, named: dict[str, str]) -> str:
    with SkipLog() as unlisted:
        target = task.fields[1].name
        first = islice(_examples(task, source, named, unlisted), CHOOSE_TOKENS_FROM)
        return metric.choose_tokens([example.values[target] for example in first])


def _scored(
    task: Task,
    metric: Metric,
    opened: Opened,
    examples: Iterable[schema.Example],
    tokens: str,
    file: Path | None,
    baseline: dict[str, list[dict[str, float]]],
) -> Tally:
    """Predicts and scores rows as they come; `baseline` is filled with the scores of baselines."""
    text, target = (field.name for field in task.fields[:2])
    tally = Tally(opened.precision, opened.megabytes)
    for_model, for_score = tee(examples)
    show = partial(_show, opened.name)
    started = time.perf_counter()
    with ExitStack() as stack:
        write = None if file is None else stack.enter_context(row_writer(file, "wb"))
        texts = (example.values[text] for example in for_model)
        for prediction in predict(opened.bundle, texts, opened.settings, show):
            example = next(for_score)
            source, reference = example.values[text], example.values[target]
            [scores] = metric.score_rows([prediction.text], [reference], tokens)
            tally.add(prediction, scores)
            for name, rows in baseline.items():
                rows += metric.score_rows([metric.baselines[name](source)], [reference], tokens)
            if write is not None:
                row = {
                    **example.row.values,
                    f"predicted_{task.output}": prediction.text,
                    "stop": prediction.stop,
                    "tokens": prediction.tokens,
                    "source_tokens_unread": prediction.source_tokens_unread,
                    "scores": {name: round(value, 4) for name, value in scores.items()},
                }
                write(row)
    tally.seconds = time.perf_counter() - started
    count = len(tally.rows)
    events.emit(events.Progress(f"evaluating {opened.name}", count, count, "rows"))
    return tally


def _show(name: str, done: int) -> None:
    events.emit(events.Progress(f"evaluating {name}", done, None, "rows"))
