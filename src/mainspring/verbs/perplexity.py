"""What `evaluate` does for tasks that are scored by their loss: how surprising the texts are to the
model, and what it writes itself.

In memory stay three numbers a row and the ids of what was predicted.
"""

import math
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mainspring import events
from mainspring.checkpoints.tokenizer import Tokenizer
from mainspring.data import schema
from mainspring.data.readers import Source
from mainspring.data.skipped import SkipLog
from mainspring.errors import BadData
from mainspring.formulations import IGNORED, EncodedRow, Values
from mainspring.formulations.inputs import in_chunks
from mainspring.formulations.likelihood import nats, rolling, start_id
from mainspring.formulations.prediction import tokenizer_of
from mainspring.metrics import ROWS, Metric, Statistics
from mainspring.metrics.likelihood import SIGNATURE, combine, uniform, unigram, variety
from mainspring.tasks import Task
from mainspring.tasks.reading import checked, count, match
from mainspring.verbs.evaluation import Evaluation, comparison, intervals, rounded
from mainspring.verbs.opening import Opened, Use, open_for
from mainspring.verbs.output import joined, make_folder, row_writer, tell_skipped

AT_ONCE = 64  # rows
PROMPT, SAMPLE = 32, 96  # tokens

METRIC = Metric(lambda predictions, references, kind: [], lambda kind: SIGNATURE, combine)


@dataclass
class Surprise:
    """What is kept of one model's losses: statistics and labels of each row; how many rows the
    limits cut, and how many held nothing to predict."""

    precision: str
    megabytes: float
    vocabulary: int
    rows: list[Statistics] = field(default_factory=list)
    labels: list["array[int]"] = field(default_factory=list)
    seconds: float = 0.0
    cut: int = 0
    empty: int = 0

    @property
    def speed(self) -> float:
        """Predicted tokens a second."""
        return sum(row["tokens"] for row in self.rows) / max(self.seconds, 1e-9)


def score_losses(
    task: Task,
    source: Source,
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
    matched = match(task, source, named, given)
    if out is not None:
        make_folder(out, out)
    skipped = SkipLog(None if out is None else out / "skipped.jsonl", strict=strict)
    found: list[Surprise] = []
    report: dict[str, Any] = {}
    at_limit = 0.0
    total = count(task, source, matched, given, limit)
    for number, use in enumerate(contestants):
        opened = open_for(task, replace(use, generation=_sampling(use, seed)))
        with skipped if number == 0 else SkipLog() as log:
            rows = islice(checked(task, source, matched, log, given), limit)
            file = None if out is None or number else out / "predictions.jsonl"
            found.append(surprised(opened, rows, total, file))
        if number == 0:
            with SkipLog() as unlisted:
                again = islice(checked(task, source, matched, unlisted, given), limit)
                report, at_limit = sampled(task, opened, again, out)
    tell_skipped(skipped)
    first = found[0]
    base = {
        "uniform": uniform(first.rows, first.vocabulary),
        "unigram": unigram(first.rows, first.labels),
    }
    against: dict[str, Any] = {}
    if len(found) > 1:
        against = comparison(METRIC, contestants[1].model, first, found[1], seed)
    return Evaluation(
        task=task.name,
        model=contestants[0].model,
        rows=len(first.rows),
        skipped=skipped.total,
        scores=rounded(METRIC.scores(first.rows)),
        interval=intervals(METRIC, first.rows, seed),
        baseline={name: rounded(METRIC.scores(rows)) for name, rows in base.items()},
        signature=SIGNATURE,
        hit_limit=at_limit,
        sources_cut=first.cut / len(first.rows),
        tokens_per_second=round(first.speed, 1),
        precision=first.precision,
        megabytes=round(first.megabytes, 1),
        predictions=None if out is None else str(out / "predictions.jsonl"),
        against=against,
        report=report,
        counts={"rows with nothing to predict": first.empty} if first.empty else {},
    )


# -- losses ----------------------------------------------------------------------------------------


def surprised(
    opened: Opened, examples: Iterable[schema.Example], total: int, file: Path | None
) -> Surprise:
    """How surprising each of `total` rows is; rows in which nothing is predicted are left out."""
    tokenizer = tokenizer_of(opened.bundle)
    kept = Surprise(opened.precision, opened.megabytes, tokenizer.vocabulary)
    started = time.perf_counter()
    name = f"evaluating {opened.name}"
    show = events.counter(name, total)
    with ExitStack() as stack:
        write = None if file is None else stack.enter_context(row_writer(file, "wb"))
        for chunk in in_chunks(examples, AT_ONCE):
            encoded = [encoded_row(opened, example.values) for example in chunk]
            losses = nats(
                opened.bundle, opened.formulation, (part for parts in encoded for part in parts)
            )
            for example, parts in zip(chunk, encoded, strict=True):
                surprise = math.fsum(islice(losses, len(parts)))
                labels = array("i", (i for p in parts for i in p.target if i != IGNORED))
                size, unspelt = said_bytes(example.values, parts, tokenizer)
                if not labels or not size:
                    kept.empty += 1
                    continue
                kept.cut += any(part.source_lost or part.target_lost for part in parts)
                row = {"nats": surprise, "tokens": float(len(labels)), "bytes": float(size)}
                row["unspelt"] = float(unspelt)
                kept.rows.append(row)
                kept.labels.append(labels)
                if write is not None:
                    write(joined(example.row.values, row | rounded(combine({**row, ROWS: 1}))))
            show(len(kept.rows))
    if not kept.rows:
        raise BadData("in none of the rows there is anything to predict")
    kept.seconds = time.perf_counter() - started
    events.emit(events.Progress(name, len(kept.rows), len(kept.rows), "rows"))
    strange = sum(row["unspelt"] for row in kept.rows)
    if strange:
        of = strange / sum(row["bytes"] for row in kept.rows)
        events.warn(
            f"{strange:,.0f} bytes of the texts ({of:.1%}) are unknown to the tokenizer; each "
            "counts 8 bits in the scores per byte"
        )
    return kept


def encoded_row(opened: Opened, values: Values) -> list[EncodedRow]:
    """A row's examples. Plain text is predicted from its first token to its last; answers and
    conversations as they are learnt."""
    tokenizer = tokenizer_of(opened.bundle)
    if "messages" in values or "target" in values:
        return opened.formulation.encode([values], tokenizer, opened.setup)
    ids = tokenizer.encode(values["text"], special=False)
    return rolling(ids, start_id(tokenizer), opened.setup.limits.source)


def said_bytes(
    values: Values, parts: Sequence[EncodedRow], tokenizer: Tokenizer
) -> tuple[int, int]:
    """How many bytes the text has that is predicted, and how many of them stand behind the unknown
    token. Of an answer that is cut only what is left counts."""
    if "messages" in values:
        said = [m["content"] for m in values["messages"] if m["role"] == "assistant"]
    else:
        said = [values["target"] if "target" in values else values["text"]]
    size = sum(len(text.encode()) for text in said)
    cut = any(p.target_lost if "target" in values else p.source_lost for p in parts)
    unknown = tokenizer.unk_id is not None and any(tokenizer.unk_id in p.target for p in parts)
    if not cut and not unknown:
        return size, 0
    written = (tokenizer.decode(i for i in p.target if i != tokenizer.unk_id) for p in parts)
    spelt = sum(len(text.encode()) for text in written)
    return (spelt, 0) if cut else (size, max(0, size - spelt))


# -- samples ---------------------------------------------------------------------------------------


def _sampling(use: Use, seed: int) -> dict[str, Any]:
    return {"max_new_tokens": SAMPLE, "seed": seed, **use.generation, "do_sample": True}


def sampled(
    task: Task, opened: Opened, examples: Iterable[schema.Example], out: Path | None
) -> tuple[dict[str, Any], float]:
    """(what is told of a few texts that the model writes, the share of them that hit the length
    limit). Of a plain text the beginning is continued, prompts are answered."""
    count = int(opened.setup.options.get("samples", 0))
    if not count:
        return {}, 0.0
    prompts = list(islice(_prompts(opened, examples), count))
    made = list(opened.predict(({"text": prompt} for prompt in prompts), lambda done: None))
    if out is not None:
        with row_writer(out / "samples.jsonl", "wb") as write:
            for prompt, prediction in zip(prompts, made, strict=True):
                write({"prompt": prompt, task.output: prediction.value, "stop": prediction.stop})
    told = {"samples": len(made), **rounded(variety([prediction.value for prediction in made]))}
    shown = "  ".join(f"{name} {value:g}" for name, value in told.items())
    lines = [("variety", shown), *(("wrote", _shown(prediction.value)) for prediction in made[:3])]
    events.emit(events.Block("Samples", tuple(lines)))
    return told, sum(prediction.stop == "length" for prediction in made) / len(made)


def _shown(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"


def _prompts(opened: Opened, examples: Iterable[schema.Example]) -> Iterator[str]:
    tokenizer = tokenizer_of(opened.bundle)
    for example in examples:
        values = example.values
        if "messages" in values:
            asked = [m["content"] for m in values["messages"] if m["role"] == "user"]
            if asked:
                yield asked[0]
        elif "target" in values:
            yield values["text"]
        else:
            ids = tokenizer.encode(values["text"], special=False)[:PROMPT]
            yield tokenizer.decode(ids)
