"""What `evaluate` does: predict, score row by row, and say how sure the means are.

Predictions go to a file as they are made; in memory stay a few numbers a row.
"""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.data import schema
from mainspring.data.readers import Source, sources
from mainspring.data.skipped import SkipLog
from mainspring.errors import Mismatch
from mainspring.formulations import Prediction, Values
from mainspring.metrics import Classes, Metric, Statistics, Table
from mainspring.tasks import Task
from mainspring.tasks.reading import Matched, by_columns, checked, count, match
from mainspring.tasks.settings import remembered
from mainspring.verbs.evaluation import Evaluation, comparison, intervals, rounded
from mainspring.verbs.opening import Opened, Use, open_for
from mainspring.verbs.output import joined, make_folder, row_writer, tell_skipped


@dataclass
class Tally:
    """What is kept of the predictions of one model."""

    precision: str
    megabytes: float
    rows: Table = field(default_factory=Table)
    classes: Classes = field(default_factory=Classes)
    at_limit: int = 0
    cut: int = 0
    tokens: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, prediction: Prediction, statistics: Statistics) -> None:
        self.rows.append(statistics)
        self.at_limit += prediction.stop == "length"
        self.cut += prediction.is_of_long
        self.tokens += prediction.tokens
        self.counts.update(prediction.counts)
        if prediction.error is not None:
            self.refused[prediction.error] += 1

    @property
    def speed(self) -> float:
        """Generated tokens a second, reading and scoring included."""
        return self.tokens / max(self.seconds, 1e-9)


def score(
    task: Task,
    data: Path,
    *,
    contestants: list[Use],
    out: Path | None,
    named: dict[str, str],
    given: Values,
    limit: int | None,
    seed: int,
    strict: bool,
) -> Evaluation:
    """The `Evaluation` of the first contestant, against the second if there is one."""
    metric = task.metric
    if metric is None and not any(formulation.predict for formulation in task.formulations):
        raise Mismatch(f"`{task.name}` has no metric on predictions; `fit` reports its loss")
    source = _test_source(data)
    if metric is None:
        from mainspring.verbs.perplexity import score_losses

        return score_losses(
            task,
            source,
            contestants=contestants,
            out=out,
            named=named,
            given=given,
            limit=limit,
            seed=seed,
            strict=strict,
        )
    options = {**remembered(contestants[0].model, task), **contestants[0].options}
    task, found = by_columns(task, options, source, named)
    contestants = [replace(use, options={**found, **use.options}) for use in contestants]
    matched = match(task, source, named, given)
    kind = _kind(task, metric, source, matched, given, limit)
    report: dict[str, Any] = {}
    if out is not None:
        make_folder(out, out)
    skipped = SkipLog(None if out is None else out / "skipped.jsonl", strict=strict)
    baseline = {name: Table() for name in metric.baselines}
    total = count(task, source, matched, given, limit, pieces=False)
    tallies = []
    for number, use in enumerate(contestants):
        opened = open_for(task, use)
        with skipped if number == 0 else SkipLog() as log:
            rows = islice(checked(task, source, matched, log, given, pieces=False), limit)
            file = None if out is None or number else out / "predictions.jsonl"
            bases = baseline if number == 0 else {}
            tallies.append(_scored(task, metric, opened, rows, total, kind, file, bases))
        if metric.report is not None and number == 0:
            tally = tallies[0]
            report = metric.report(tally.rows, tally.classes, opened.setup.labels, out)
    tell_skipped(skipped)
    first = tallies[0]
    if first.refused:
        why = next(iter(first.refused))
        events.warn(f"{first.refused.total()} rows count as wrong, the model refuses them: {why}")
    against: dict[str, Any] = {}
    if len(tallies) > 1:
        against = comparison(metric, contestants[1].model, first, tallies[1], seed)
    return Evaluation(
        task=task.name,
        model=contestants[0].model,
        rows=len(first.rows),
        skipped=skipped.total,
        scores=rounded(metric.scores(first.rows)),
        interval=intervals(metric, first.rows, seed),
        baseline={n: rounded(metric.scores(rows)) for n, rows in baseline.items() if rows},
        signature=metric.signature(kind),
        hit_limit=first.at_limit / len(first.rows),
        sources_cut=first.cut / len(first.rows),
        tokens_per_second=round(first.speed, 1),
        precision=first.precision,
        megabytes=round(first.megabytes, 1),
        predictions=None if out is None else str(out / "predictions.jsonl"),
        against=against,
        report=report,
        counts=dict(first.counts),
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


def _kind(
    task: Task,
    metric: Metric,
    source: Source,
    matched: Matched,
    given: Values,
    limit: int | None,
) -> str:
    """How texts are compared, chosen from the references of all rows that are scored."""
    assert task.target is not None
    target = task.target.name
    with SkipLog() as unlisted, events.listening(lambda event: None):
        rows = islice(checked(task, source, matched, unlisted, given, pieces=False), limit)
        return metric.choose_kind(example.values[target] for example in rows)


def _scored(
    task: Task,
    metric: Metric,
    opened: Opened,
    examples: Iterable[schema.Example],
    total: int,
    kind: str,
    file: Path | None,
    baseline: dict[str, Table],
) -> Tally:
    """Predicts and scores rows as they come, `total` of them; `baseline` is filled with the
    scores of baselines."""
    assert task.target is not None
    target = task.target.name
    tally = Tally(opened.precision, opened.megabytes)
    for_model, for_score = tee(examples)
    show = events.counter(f"evaluating {opened.name}", total)
    started = time.perf_counter()
    with ExitStack() as stack:
        write = None if file is None else stack.enter_context(row_writer(file, "wb"))
        for prediction in opened.predict((example.values for example in for_model), show):
            example = next(for_score)
            reference = example.values[target]
            judged = metric.judged(prediction.value, prediction.details)
            [found] = metric.score_rows([judged], [reference], kind)
            tally.add(prediction, found)
            if metric.report is not None:
                tally.classes.add(metric.classes(reference), reference, prediction.value)
            for name, rows in baseline.items():
                guess = metric.baselines[name](example.values, opened.setup.options)
                if guess is not None:
                    rows.append(*metric.score_rows([guess], [reference], kind))
            if write is not None:
                added = {
                    f"predicted_{task.output}": prediction.value,
                    **prediction.details,
                    "source_tokens_unread": prediction.source_tokens_unread,
                }
                if opened.formulation.generates:
                    added |= {"stop": prediction.stop, "tokens": prediction.tokens}
                if metric.combine is None:  # a row has scores of its own
                    added["scores"] = rounded(found)
                write(joined(example.row.values, added))
    tally.seconds = time.perf_counter() - started
    count = len(tally.rows)
    events.emit(events.Progress(f"evaluating {opened.name}", count, count, "rows"))
    return tally
